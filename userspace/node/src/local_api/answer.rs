//! Answers as Tailscale's daemon gives them: indented JSON, and errors as text or as `{"Error": ...}`.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use wire::local::CheckPrefsResponse;

use super::request::Refusal;

pub(super) const JSON: (HeaderName, HeaderValue) =
    (CONTENT_TYPE, HeaderValue::from_static("application/json"));
pub(super) const TEXT: (HeaderName, HeaderValue) =
    (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));

/// A 200 with indented JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::new();
        let mut serializer =
            serde_json::Serializer::with_formatter(&mut body, PrettyFormatter::with_indent(b"\t"));
        match self.0.serialize(&mut serializer) {
            Ok(()) => {
                body.push(b'\n');
                ([JSON], body).into_response()
            }
            Err(error) => {
                Problem::text(StatusCode::INTERNAL_SERVER_ERROR, format!("JSON encoding error: {error}"))
                    .into_response()
            }
        }
    }
}

/// Anything but success.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    json: bool,
}

impl Problem {
    /// A line of text, as Go's `http.Error` writes it.
    pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), json: false }
    }

    /// The body or a parameter makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::text(StatusCode::BAD_REQUEST, message)
    }

    /// There is no netmap yet, and the question is about it.
    pub(super) fn no_netmap() -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, "no netmap")
    }

    pub(super) fn shutting_down() -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down; start it again")
    }
}

/// As JSON, of which the stock client shows the sentence alone.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: refusal.to_string(), json: true }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if !self.json {
            return (self.status, [TEXT], self.message + "\n").into_response();
        }
        let mut response = Json(CheckPrefsResponse { error: self.message }).into_response();
        *response.status_mut() = self.status;
        response
    }
}

/// What Go's `http.NotFound` says.
pub(super) async fn not_found() -> Problem {
    Problem::text(StatusCode::NOT_FOUND, "404 page not found")
}
