//! One gateway, asked by PCP and NAT-PMP over one socket, and by UPnP.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use wire::portmap::{Error, Granted, PORT, nat_pmp, pcp};

use super::upnp::Gateway;
use super::{LIFETIME, Mapping, Report, Wanted};
use crate::random;
use crate::sockets::set_bypass_mark;

/// How long a router may take to say what it speaks; UPnP's are slow.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Between the two copies of a request.
const AGAIN: Duration = Duration::from_millis(250);
/// No answer is longer (RFC 6887 section 7).
const LONGEST: usize = 1100;

/// How a mapping was got, in the order of preference: what can be renewed and taken back with certainty comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Pcp(pcp::Nonce),
    NatPmp,
    Upnp,
}

/// The gateway that is asked.
pub(super) struct Router {
    wanted: Wanted,
    socket: UdpSocket,
    upnp: Option<Gateway>,
}

impl Router {
    /// Opens a socket to it; nothing is sent.
    pub(super) async fn open(wanted: Wanted) -> io::Result<Self> {
        let socket = marked_socket(wanted.local)?;
        // Connected: nobody but the router can answer.
        socket.connect((wanted.gateway, PORT)).await?;
        Ok(Self { wanted, socket, upnp: None })
    }

    /// What it speaks.
    pub(super) async fn probe(&mut self) -> Report {
        let (datagrams, upnp) =
            tokio::join!(self.probe_datagrams(), Gateway::find(self.wanted, Instant::now() + PATIENCE));
        self.upnp = upnp.inspect_err(|error| tracing::debug!(%error, "no UPnP gateway")).ok();
        Report { upnp: self.upnp.is_some(), ..datagrams }
    }

    async fn probe_datagrams(&self) -> Report {
        let mut found = Report::default();
        let deadline = Instant::now() + PATIENCE;
        let requests = [&pcp::announce_request(self.wanted.local)[..], &nat_pmp::ADDRESS_REQUEST];
        for again in [Instant::now() + AGAIN, deadline] {
            for request in requests {
                // A router without the port refuses, which the next call reports.
                _ = self.socket.send(request).await;
            }
            let mut answer = [0; LONGEST];
            while !(found.pcp && found.nat_pmp)
                && let Ok(received) = timeout_at(again, self.socket.recv(&mut answer)).await
            {
                let Ok(length) = received else { continue };
                let answer = &answer[..length];
                found.pcp |= pcp::is_announcement(answer);
                found.nat_pmp |= nat_pmp::read_address(answer).is_ok();
            }
        }
        found
    }

    /// Maps the port by the best of what it offers, the same one as `before` if possible.
    pub(super) async fn map(&mut self, offered: &Report, before: Option<&Mapping>) -> Option<Mapping> {
        let external = before.map_or(self.wanted.port, |mapping| mapping.granted.external.port());
        let nonce = match before.map(|mapping| &mapping.by) {
            Some(Protocol::Pcp(nonce)) => *nonce,
            _ => *random().first_chunk().unwrap_or(&[0; 12]),
        };
        let note = |by: &str, error: &Error| tracing::info!(by, %error, "no port mapping");
        if offered.pcp {
            match self.map_pcp(external, LIFETIME, nonce).await {
                Ok(granted) => return Some(Mapping { granted, by: Protocol::Pcp(nonce) }),
                Err(error) => note("PCP", &error),
            }
        }
        if offered.nat_pmp {
            match self.map_nat_pmp(external, LIFETIME).await {
                Ok(granted) => return Some(Mapping { granted, by: Protocol::NatPmp }),
                Err(error) => note("NAT-PMP", &error),
            }
        }
        let gateway = self.upnp.as_ref()?;
        match gateway.map(self.wanted, external, LIFETIME).await {
            Ok(granted) => Some(Mapping { granted, by: Protocol::Upnp }),
            Err(error) => {
                note("UPnP", &error);
                None
            }
        }
    }

    /// Takes a mapping back.
    pub(super) async fn release(&self, mapping: &Mapping) {
        let external = mapping.granted.external;
        let released = match &mapping.by {
            Protocol::Pcp(nonce) => self.map_pcp(external.port(), Duration::ZERO, *nonce).await.map(drop),
            Protocol::NatPmp => self.map_nat_pmp(0, Duration::ZERO).await.map(drop),
            Protocol::Upnp => match &self.upnp {
                Some(gateway) => gateway.release(external.port()).await,
                None => Ok(()),
            },
        };
        if let Err(error) = released {
            tracing::info!(%external, %error, "the port mapping was not taken back; it runs out by itself");
        }
    }

    async fn map_pcp(&self, external: u16, lifetime: Duration, nonce: pcp::Nonce) -> Result<Granted, Error> {
        let Wanted { local, port, .. } = self.wanted;
        let external = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, external);
        let request = pcp::map_request(local, port, external, lifetime, nonce);
        self.ask(&request, |answer| pcp::read_mapping(answer, port, &nonce)).await
    }

    async fn map_nat_pmp(&self, external: u16, lifetime: Duration) -> Result<Granted, Error> {
        let port = self.wanted.port;
        let address = self.ask(&nat_pmp::ADDRESS_REQUEST, nat_pmp::read_address).await?;
        let request = nat_pmp::map_request(port, external, lifetime);
        let (external, lifetime) = self.ask(&request, |answer| nat_pmp::read_mapping(answer, port)).await?;
        Ok(Granted { external: SocketAddrV4::new(address, external), lifetime })
    }

    /// The answer to a request, which is sent twice.
    async fn ask<T>(&self, request: &[u8], read: impl Fn(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
        let silent = || Error::Refused("it does not answer".into());
        for until in [Instant::now() + AGAIN, Instant::now() + PATIENCE] {
            _ = self.socket.send(request).await;
            let mut answer = [0; LONGEST];
            while let Ok(received) = timeout_at(until, self.socket.recv(&mut answer)).await {
                let Ok(length) = received else { break };
                match read(&answer[..length]) {
                    // A late answer to something else.
                    Err(Error::Foreign) => {}
                    answer => return answer,
                }
            }
        }
        Err(silent())
    }
}

/// A UDP socket at our address on the way there, kept off the overlay.
pub(super) fn marked_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((local, 0))?;
    set_bypass_mark(&socket)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
