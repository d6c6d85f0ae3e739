//! Why a session ended, in words for the user.

use std::time::Duration;

use transport::dial::DialError;
use transport::noise::NoiseError;
use transport::tls::TlsError;
use transport::upgrade::HttpError;

/// A session's end. The text says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server cannot be reached.
    #[error("control server: {0}. Check the URL and the network")]
    Dial(#[from] DialError),
    /// TLS with the server failed.
    #[error("control server: {0}")]
    Tls(#[from] TlsError),
    /// The server speaks something else than HTTP, or refuses the request.
    #[error("control server: {0}")]
    Http(#[from] HttpError),
    /// There is a server, but not a control server.
    #[error("{url} is not a control server: {why}. Check the URL given as --login-server")]
    NotControl {
        /// What was fetched.
        url: String,
        /// What came back.
        why: String,
    },
    /// The Noise handshake failed.
    #[error("control server: {0}")]
    Noise(#[from] NoiseError),
    /// The server does not let this node in; a person must do something.
    #[error("the control server refused this node: {0}")]
    Rejected(String),
    /// The server no longer knows this node's key; it is registered again.
    #[error("the control server does not know this node: {0}")]
    Unknown(String),
    /// The server asks for patience.
    #[error("the control server is busy and asks to wait {} s", .0.as_secs())]
    Busy(Duration),
    /// The server itself has failed.
    #[error("the control server failed: {0}")]
    Server(String),
    /// The connection was lost.
    #[error("connection to the control server lost: {0}")]
    Lost(String),
    /// The server said something that cannot be understood.
    #[error("the control server's answer cannot be read: {0}")]
    Protocol(String),
}

impl Failure {
    /// Whether only a person can help, so that trying again is in vain.
    pub fn needs_person(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// How long the server asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy(after) = self { Some(*after) } else { None }
    }
}
