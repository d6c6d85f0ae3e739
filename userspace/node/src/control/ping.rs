//! The server's questions in a map response, and how they are answered.
//!
//! Without types the answer is a HEAD request; `c2n` carries an HTTP/1.x request, answered in the same form. Pings of peers
//! (`disco`, `TSMP`, ...) are the event loop's; their results are posted here (tailscale `controlclient/direct.go`).

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Uri};
use transport::upgrade;
use wire::control::{PingRequest, PingResponse};
use wire::local::{PingResult, PingType};

use super::connection::{Connection, dial};
use super::server_url::Route;
use super::{Config, Failure};

/// As much of an answer to a HEAD as is read.
const MAX_ANSWER: usize = 64 << 10;

/// The pings of peers that a question asks for; kinds this node does not know are left out.
pub(super) fn kinds(ping: &PingRequest) -> impl Iterator<Item = PingType> + '_ {
    ping.types.split(',').filter_map(|kind| kind.parse().ok())
}

/// Posts the result of a ping of that kind to where the question wants it.
pub(super) async fn post_result(
    config: &Config,
    connection: &Connection,
    ping: &PingRequest,
    kind: PingType,
    result: PingResult,
) -> Result<(), Failure> {
    let url: Uri = ping.url.parse().map_err(|_| Failure::Protocol(format!("ping to {:?}", ping.url)))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let response = PingResponse {
        kind: kind.to_string(),
        ip: result.ip,
        node_ip: result.node_ip,
        node_name: result.node_name,
        err: result.err,
        latency_seconds: result.latency_seconds,
        endpoint: result.endpoint,
        peer_relay: result.peer_relay,
        derp_region_id: result.derp_region_id,
        derp_region_code: result.derp_region_code,
        peer_api_port: result.peer_api_port,
        is_local_ip: result.is_local_ip,
    };
    let body = serde_json::to_vec(&response).map_err(|error| Failure::Protocol(error.to_string()))?;
    if ping.url_is_noise {
        connection.send(connection.request(Method::POST, path).body(Full::from(body))).await?;
    } else {
        outside(config, &url, path, Method::POST, body.into()).await?;
    }
    Ok(())
}

/// Whether [`answer`] is for this question.
pub(super) fn is_ours(ping: &PingRequest) -> bool {
    matches!(ping.types.as_str(), "" | "c2n")
}

/// Answers the question.
pub(super) async fn answer(
    config: &Config,
    connection: &Connection,
    ping: &PingRequest,
) -> Result<(), Failure> {
    let url: Uri = ping.url.parse().map_err(|_| Failure::Protocol(format!("ping to {:?}", ping.url)))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    if ping.types == "c2n" {
        let body = Full::from(answer_c2n(&ping.payload.0));
        connection.send(connection.request(Method::POST, path).body(body)).await?;
    } else if ping.url_is_noise {
        connection.send(connection.request(Method::HEAD, path).body(Full::default())).await?;
    } else {
        outside(config, &url, path, Method::HEAD, Bytes::new()).await?;
    }
    Ok(())
}

/// A request outside of Noise.
async fn outside(config: &Config, url: &Uri, path: &str, method: Method, body: Bytes) -> Result<(), Failure> {
    let protocol = |why: String| Failure::Protocol(format!("ping to {url}: {why}"));
    let host = url.host().ok_or_else(|| protocol("no host".to_owned()))?;
    let tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = upgrade::request(method, path, authority).map_err(|e| protocol(e.to_string()))?;
    let request = request.map(|_| Full::from(body));
    let stream = dial(config, host, Route { tls, port }).await?;
    upgrade::send(stream, request, MAX_ANSWER).await?;
    Ok(())
}

/// The answer to an HTTP request in wire form, in wire form.
fn answer_c2n(request: &[u8]) -> Bytes {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = match end {
        Some(end) => (&request[..end], &request[end + 4..]),
        None => (request, &[][..]),
    };
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match path {
        b"/echo" => respond("200 OK", body),
        _ => respond("404 Not Found", b"unknown c2n path\n"),
    }
}

fn respond(status: &str, body: &[u8]) -> Bytes {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_gives_the_body_back() {
        let answer = answer_c2n(b"POST /echo?x=1 HTTP/1.1\r\nHost: node\r\nContent-Length: 4\r\n\r\nping");
        assert!(
            answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\nping"),
            "{answer:?}"
        );
        assert!(answer_c2n(b"GET /echo HTTP/1.0").starts_with(b"HTTP/1.1 200 OK\r\n"));
    }

    #[test]
    fn the_rest_is_unknown() {
        for request in [&b"GET /debug/prefs HTTP/1.1\r\n\r\n"[..], b"", b"\xff\r\n\r\n", b"GET"] {
            assert!(answer_c2n(request).starts_with(b"HTTP/1.1 404 Not Found\r\n"), "{request:?}");
        }
    }
}
