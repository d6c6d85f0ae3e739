//! A gateway that speaks UPnP: found by SSDP, asked by SOAP over HTTP.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use tokio::time::{Instant, timeout, timeout_at};
use transport::dial::Dialer;
use transport::upgrade;
use wire::portmap::upnp::{self, Call, MULTICAST, PORT, Service};
use wire::portmap::{Error, Granted};

use super::Wanted;
use super::router::marked_socket;
use crate::random;
use crate::sockets::BYPASS_MARK;

/// A description or an answer is a few KiB.
const MAX_ANSWER: usize = 64 << 10;
/// For one HTTP exchange.
const DEADLINE: Duration = Duration::from_secs(3);
/// Other external ports tried when the wanted one is taken.
const OTHER_PORTS: usize = 3;
/// What routers without leases are told; the mapping stays until it is taken back.
const FOR_EVER: Duration = Duration::ZERO;
/// So long a mapping for ever is believed to be there.
const RECHECK: Duration = Duration::from_secs(3600);

/// A router's port mapping service.
pub(super) struct Gateway {
    /// Its host and port.
    authority: String,
    host: String,
    port: u16,
    service: Service,
}

impl Gateway {
    /// Searches the gateway, and nobody else, until `deadline`.
    pub(super) async fn find(wanted: Wanted, deadline: Instant) -> Result<Self, Error> {
        let silent = |_| Error::Refused("nobody answers the search".into());
        let failed = |error: std::io::Error| Error::Refused(error.to_string());
        let socket = marked_socket(wanted.local).map_err(failed)?;
        for version in [1, 2] {
            for to in [MULTICAST, SocketAddrV4::new(wanted.gateway, PORT)] {
                // Without a multicast route the unicast search is enough.
                _ = socket.send_to(upnp::search(version).as_bytes(), to).await;
            }
        }
        let mut answer = [0; 2048];
        loop {
            let received = timeout_at(deadline, socket.recv_from(&mut answer)).await.map_err(silent)?;
            let Ok((length, from)) = received else { continue };
            let Some(location) = upnp::location(&answer[..length]) else { continue };
            if from.ip() == IpAddr::V4(wanted.gateway) {
                return Self::describe(wanted, &location).await;
            }
        }
    }

    /// Reads the description at `location`, which must be the router's own.
    async fn describe(wanted: Wanted, location: &str) -> Result<Self, Error> {
        let uri: Uri = location.parse().map_err(|_| Error::Foreign)?;
        let host = uri.host().ok_or(Error::Foreign)?.to_owned();
        if host.parse() != Ok(wanted.gateway) || uri.scheme_str() != Some("http") {
            return Err(Error::Refused(format!("its description is elsewhere: {location}")));
        }
        let port = uri.port_u16().unwrap_or(80);
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = upgrade::request(Method::GET, path, &authority).map_err(|_| Error::Foreign)?;
        let (status, description) = exchange(&host, port, request).await?;
        if status != StatusCode::OK {
            return Err(Error::Refused(format!("its description: {status}")));
        }
        let service = upnp::service(&description)?;
        Ok(Self { authority, host, port, service })
    }

    /// Maps the port, to `external` if it is free.
    pub(super) async fn map(
        &self,
        wanted: Wanted,
        external: u16,
        lifetime: Duration,
    ) -> Result<Granted, Error> {
        let address = upnp::read_address(&self.call(&self.service.external_address()).await?)?;
        let internal = SocketAddrV4::new(wanted.local, wanted.port);
        let others = random().into_iter().take(OTHER_PORTS).map(|byte| 0xc000 | u16::from(byte) << 5);
        let mut refusal = Error::Foreign;
        for external in std::iter::once(external).chain(others) {
            match self.call(&self.service.add(external, internal, lifetime)).await {
                Ok(_) => return Ok(Granted { external: SocketAddrV4::new(address, external), lifetime }),
                Err(Error::Version) => {
                    self.call(&self.service.add(external, internal, FOR_EVER)).await?;
                    let external = SocketAddrV4::new(address, external);
                    return Ok(Granted { external, lifetime: RECHECK });
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Takes a mapping back.
    pub(super) async fn release(&self, external: u16) -> Result<(), Error> {
        self.call(&self.service.delete(external)).await.map(drop)
    }

    /// One SOAP call. [`Error::Version`] where the router knows no leases.
    async fn call(&self, call: &Call) -> Result<String, Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.service.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header("SOAPAction", &call.action)
            .body(Full::from(call.body.clone()))
            .map_err(|_| Error::Foreign)?;
        let (status, answer) = exchange(&self.host, self.port, request).await?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let fault = upnp::fault(&answer);
        Err(if fault.only_permanent { Error::Version } else { Error::Refused(fault.text) })
    }
}

async fn exchange(
    host: &str,
    port: u16,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Refused(error.to_string());
    let exchange = async {
        let dialer = Dialer { mark: Some(BYPASS_MARK), deadline: DEADLINE };
        let stream = dialer.tcp(host, port).await.map_err(|error| failed(&error))?;
        let answer = upgrade::send(stream, request, MAX_ANSWER).await.map_err(|error| failed(&error))?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        Ok((answer.status(), text))
    };
    timeout(DEADLINE, exchange).await.map_err(|_| Error::Refused("it does not answer".into()))?
}
