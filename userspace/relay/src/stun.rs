//! STUN on a UDP socket.

use std::convert::Infallible;
use std::io;
use std::time::Instant;

use tokio::net::UdpSocket;

use crate::Relay;

/// A request has 40 bytes; what does not fit in here is none.
const MAX_REQUEST: usize = 512;

impl Relay {
    /// Answers binding requests until the socket fails. An answer's source address is the kernel's choice: on a machine with
    /// several addresses bind the one clients are given.
    ///
    /// # Errors
    /// When the socket can no longer be read.
    pub async fn run_stun(&self, socket: UdpSocket) -> io::Result<Infallible> {
        let mut request = [0; MAX_REQUEST];
        loop {
            let (length, source) = match socket.recv_from(&mut request).await {
                Ok(received) => received,
                // An ICMP error of an earlier answer: says nothing about the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let answer = self.stun().answer(&request[..length], source, Instant::now());
            if let Some(answer) = answer
                && let Err(error) = socket.send_to(&answer, source).await
            {
                tracing::debug!(%source, %error, "STUN answer not sent");
            }
        }
    }
}
