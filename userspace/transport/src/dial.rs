//! TCP to a named host: addresses of both families in turn, the first that answers wins (RFC 8305), within a deadline.
//!
//! The sockets can carry a mark, so that policy routing keeps them on the underlay: a tunnel must not swallow the
//! connections it is made of.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long an address may be silent before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address took the connection; the error is the last one's.
    #[error("cannot connect to {host} port {port}: {source}")]
    Connect {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{host} port {port} did not answer within {} s", after.as_secs())]
    Timeout {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The deadline.
        after: Duration,
    },
}

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    /// `SO_MARK` of the sockets; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// For name resolution and connection together.
    pub deadline: Duration,
}

impl Default for Dialer {
    fn default() -> Self {
        Self { mark: None, deadline: Duration::from_secs(10) }
    }
}

impl Dialer {
    /// Connects to `host`, a name or an address, without delay for small writes.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        match timeout(self.deadline, self.resolve_and_connect(host, port)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Timeout { host: host.to_owned(), port, after: self.deadline }),
        }
    }

    async fn resolve_and_connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addrs = match bare.parse::<IpAddr>() {
            Ok(addr) => vec![SocketAddr::new(addr, port)],
            Err(_) => lookup_host((bare, port))
                .await
                .map_err(|source| DialError::Resolve { host: host.to_owned(), source })?
                .collect(),
        };
        self.first_of(alternate(addrs)).await.map_err(|source| DialError::Connect {
            host: host.to_owned(),
            port,
            source,
        })
    }

    /// Starts the addresses one after another, each when the one before has failed or been silent for a while.
    async fn first_of(&self, addrs: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let mut waiting = addrs.into_iter();
        let mut running = JoinSet::new();
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address");
        loop {
            let next = waiting.next();
            let more = next.is_some();
            if let Some(addr) = next {
                running.spawn(connect(addr, self.mark));
            }
            tokio::select! {
                ended = running.join_next() => match ended {
                    Some(Ok(Ok(stream))) => return Ok(stream),
                    Some(Ok(Err(error))) => failure = error,
                    Some(Err(panic)) => failure = io::Error::other(panic),
                    None => return Err(failure),
                },
                () = sleep(STAGGER), if more => {}
            }
        }
    }
}

async fn connect(addr: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(addr).await
}

/// One family after the other, beginning with the one the resolver puts first.
fn alternate(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut order: Vec<_> =
        first.into_iter().flat_map(|addr| [Some(addr), second.next()]).flatten().collect();
    order.extend(second);
    order
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn families_alternate() {
        let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            alternate(addrs(&["[::1]:1", "[::2]:1", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"])),
            addrs(&["[::1]:1", "192.0.2.1:1", "[::2]:1", "192.0.2.2:1", "192.0.2.3:1"])
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_at_once() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = closed.local_addr().unwrap();
        drop(closed);
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = open.local_addr().unwrap();
        let stream = Dialer::default().first_of(vec![refused, addr]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addr);
    }

    #[tokio::test]
    async fn errors_name_host_and_port() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let error = Dialer::default().tcp("127.0.0.1", port).await.unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("cannot connect to 127.0.0.1 port {port}: ")),
            "{error}"
        );
    }
}
