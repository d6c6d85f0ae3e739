//! Verification by a coordination server's `/verify` (derper's `--verify-client-url`): a POST of key and source address,
//! answered with `{"Allow": true}` or not. Whatever goes wrong is a no.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, StatusCode, header};
use tokio::time::timeout;
use transport::derp::{DerpError, Server};
use transport::dial::Dialer;
use transport::stream::BoxStream;
use transport::tls::Trust;
use transport::upgrade;
use types::NodePublic;
use wire::control::{Addr, DerpAdmitClientRequest, DerpAdmitClientResponse};

use crate::{Denied, Verdict, Verify};

/// For the whole question, as Tailscale's servers.
const DEADLINE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 4 << 10;

/// Asks a URL about every client.
#[derive(Clone, Debug)]
pub struct VerifyUrl {
    server: Server,
    path: String,
    trust: Trust,
}

impl VerifyUrl {
    /// `url` is `https://HOST[:PORT]/PATH`, or `http://` where nobody listens in.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn new(url: &str, trust: Trust) -> Result<Self, DerpError> {
        let server = Server::from_url(url)?;
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("/", |index| &after_scheme[index..]).to_owned();
        Ok(Self { server, path, trust })
    }

    async fn ask(&self, node: NodePublic, source: IpAddr) -> Result<(), Denied> {
        let unavailable = |error: &dyn std::fmt::Display| Denied::Unavailable(error.to_string());
        let question = DerpAdmitClientRequest { node_public: node, source: Addr::from(source) };
        let body = serde_json::to_vec(&question).map_err(|error| unavailable(&error))?;
        let mut request = upgrade::request(Method::POST, &self.path, &self.server.host)
            .map_err(|error| unavailable(&error))?
            .map(|_: Full<Bytes>| Full::from(body));
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);

        let tcp =
            Dialer::default().tcp(&self.server.host, self.server.port).await.map_err(|e| unavailable(&e))?;
        let stream: BoxStream = match &self.server.expect {
            Some(expect) => Box::new(
                self.trust.connect(tcp, &self.server.host, expect).await.map_err(|e| unavailable(&e))?,
            ),
            None => Box::new(tcp),
        };
        let answer = upgrade::send(stream, request, MAX_ANSWER).await.map_err(|e| unavailable(&e))?;
        if answer.status() != StatusCode::OK {
            return Err(Denied::Unavailable(format!("it answered {}", answer.status())));
        }
        let answer: DerpAdmitClientResponse =
            serde_json::from_slice(answer.body()).map_err(|error| unavailable(&error))?;
        if answer.allow { Ok(()) } else { Err(Denied::NotAllowed) }
    }
}

impl Verify for VerifyUrl {
    fn verify(&self, node: NodePublic, source: IpAddr) -> Verdict<'_> {
        Box::pin(async move {
            let late = || Denied::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()));
            timeout(DEADLINE, self.ask(node, source)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
