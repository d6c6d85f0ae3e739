//! STUN on a UDP socket.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::net::UdpSocket;

use crate::Relay;
use crate::xdp::{Ahead, Xdp};

/// How STUN is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunOptions {
    /// Whether also ahead of the stack.
    pub xdp: Xdp,
    /// Not at all: the server is leaving, and clients are to find another.
    pub dropping: bool,
}

/// A request has 40 bytes; what does not fit in here is none.
const MAX_REQUEST: usize = 512;

impl Relay {
    /// Answers binding requests until the socket fails. An answer's source address is the kernel's choice: on a machine with
    /// several addresses bind the one clients are given.
    ///
    /// # Errors
    /// When the socket can no longer be read.
    pub async fn run_stun(&self, socket: UdpSocket, options: StunOptions) -> io::Result<Infallible> {
        if options.dropping {
            tracing::warn!("STUN is not answered (--drop-stun)");
        }
        let ahead = self.go_ahead(socket.local_addr()?, options);
        let follow = async {
            match &ahead {
                Some(ahead) => ahead.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failed = self.answer(&socket, options.dropping) => failed,
            never = follow => match never {},
        }
    }

    /// Programs ahead of the socket, where they are wanted.
    fn go_ahead(&self, place: SocketAddr, options: StunOptions) -> Option<Arc<Ahead>> {
        let ahead = (options.xdp != Xdp::Off).then(|| Arc::new(Ahead::new(place, options)))?;
        *self.shared.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&ahead);
        Some(ahead)
    }

    async fn answer(&self, socket: &UdpSocket, dropping: bool) -> io::Result<Infallible> {
        let mut request = [0; MAX_REQUEST];
        loop {
            let (length, source) = match socket.recv_from(&mut request).await {
                Ok(received) => received,
                // An ICMP error of an earlier answer: says nothing about the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            if dropping {
                continue;
            }
            let answer = self.stun().answer(&request[..length], source, Instant::now());
            if let Some(answer) = answer
                && let Err(error) = socket.send_to(&answer, source).await
            {
                tracing::debug!(%source, %error, "STUN answer not sent");
            }
        }
    }
}
