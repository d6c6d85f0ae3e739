//! Settings and the life of the login: prefs, start, login, logout, the one profile.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, patch, post};
use serde::de::DeserializeOwned;
use wire::local::{CheckPrefsResponse, LoginProfile, Pref, Prefs};

use super::answer::{Json, Problem};
use super::backend::Backend;
use super::request::{Refusal, Request};

/// What everybody may ask.
pub(super) fn reading() -> Router<Backend> {
    Router::new().route("/prefs", get(prefs))
}

/// What only root and the operator may.
pub(super) fn routes() -> Router<Backend> {
    Router::new()
        .route("/prefs", patch(edit_prefs))
        .route("/check-prefs", post(check_prefs))
        .route("/start", post(start))
        .route("/login-interactive", post(login_interactive))
        .route("/logout", post(logout))
        .route("/reload-config", post(reload_config))
        .route("/disconnect-control", post(disconnect_control))
        .route("/shutdown", post(shutdown))
        .route("/profiles/", get(profiles))
        .route("/profiles/{id}", get(profile))
}

/// Go's decoder looks at the body whatever the content type says, so this does too.
fn decode<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("invalid JSON body: {error}")))
}

async fn prefs(State(backend): State<Backend>) -> impl IntoResponse {
    backend.ask(|reply| Request::Prefs { reply }).await.map(Json)
}

async fn edit_prefs(State(backend): State<Backend>, body: Bytes) -> Result<Json<Prefs>, Problem> {
    let edit: wire::local::MaskedPrefs = decode(&body)?;
    if edit.set.contains(&Pref::InternalExitNodePrior) {
        return Err(Refusal::Invalid("InternalExitNodePrior cannot be set by clients".into()).into());
    }
    backend.try_ask(|reply| Request::EditPrefs { edit, reply }).await.map(Json)
}

/// Refusals are a 200 with an error inside.
async fn check_prefs(State(backend): State<Backend>, body: Bytes) -> impl IntoResponse {
    let prefs: Prefs = decode(&body)?;
    let verdict = backend.ask(|reply| Request::CheckPrefs { prefs, reply }).await?;
    let error = verdict.err().map(|refusal| refusal.to_string()).unwrap_or_default();
    Ok::<_, Problem>(Json(CheckPrefsResponse { error }))
}

async fn start(State(backend): State<Backend>, body: Bytes) -> Result<StatusCode, Problem> {
    let options = decode(&body)?;
    backend.try_ask(|reply| Request::Start { options, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn login_interactive(State(backend): State<Backend>) -> Result<StatusCode, Problem> {
    backend.try_ask(|reply| Request::LoginInteractive { reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(State(backend): State<Backend>) -> Result<StatusCode, Problem> {
    backend.try_ask(|reply| Request::Logout { reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reload_config(State(backend): State<Backend>) -> impl IntoResponse {
    backend.ask(|reply| Request::ReloadConfig { reply }).await.map(Json)
}

async fn disconnect_control(State(backend): State<Backend>) -> Result<StatusCode, Problem> {
    backend.ask(|reply| Request::DisconnectControl { reply }).await?;
    Ok(StatusCode::OK)
}

async fn shutdown(State(backend): State<Backend>) -> Result<StatusCode, Problem> {
    backend.ask(|reply| Request::Shutdown { reply }).await?;
    Ok(StatusCode::OK)
}

async fn profiles(State(backend): State<Backend>) -> impl IntoResponse {
    let profile = backend.ask(|reply| Request::Profile { reply }).await?;
    let known: Vec<LoginProfile> =
        Some(profile).filter(|profile| !profile.id.is_empty()).into_iter().collect();
    Ok::<_, Problem>(Json(known))
}

async fn profile(State(backend): State<Backend>, Path(id): Path<String>) -> impl IntoResponse {
    let profile = backend.ask(|reply| Request::Profile { reply }).await?;
    if id == "current" || id == profile.id {
        return Ok(Json(profile));
    }
    Err(Problem::text(StatusCode::NOT_FOUND, "Profile not found"))
}
