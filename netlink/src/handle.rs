//! The two sockets every call goes through.

use crate::Result;

/// Routing and generic netlink of one network namespace. Clones share the sockets.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// Opens both sockets in the network namespace of the calling thread; must run inside a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn open() -> Result<Self> {
        Err(crate::Error::NoNft)
    }
}
