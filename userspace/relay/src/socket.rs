//! What a listener sets on each connection before DERP.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// So long may the peer's kernel leave data unacknowledged, as for Tailscale's servers.
const USER_TIMEOUT_MS: u32 = 15_000;

/// Ends the connection of a client that vanished without a word: packets for its key would go there, into nothing, for the
/// quarter of an hour TCP tries by itself. The server's keep-alive frames are what it then fails to acknowledge.
/// Also sends small frames at once.
///
/// # Errors
/// What the kernel says.
pub fn notice_dead_peer(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS)?;
    Ok(())
}
