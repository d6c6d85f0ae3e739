//! What a session's TCP flags say about its life (RFC 5382 section 5, RFC 7857 section 2).
//!
//! A packet in each direction makes a connection established: SYN and SYN-ACK, two SYNs of a simultaneous open, or the
//! middle of a connection that is older than the gateway. Sequence numbers are not looked at; a forged reset therefore
//! only shortens the life of a connection that sends nothing more (RFC 7857 section 2.2).

use abi::{TCP_FIN_IN, TCP_FIN_OUT, TCP_IN, TCP_OUT, TCP_RESET};

use super::tuple::{FIN, RST, SYN};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of the tunnel.
    Out,
    /// Into the tunnel.
    In,
}

/// The bits `TCP_*` after a packet with these flags.
#[inline(always)]
pub const fn advance(seen: u8, flags: u8, way: Way) -> u8 {
    let (here, fin) = match way {
        Way::Out => (TCP_OUT, TCP_FIN_OUT),
        Way::In => (TCP_IN, TCP_FIN_IN),
    };
    if flags & RST != 0 {
        return seen | TCP_RESET;
    }
    // A new connection between the same ports begins anew.
    let kept = if flags & SYN != 0 && is_over(seen) { 0 } else { seen & !TCP_RESET };
    let ended = if flags & FIN != 0 { fin } else { 0 };
    kept | here | ended
}

/// Whether the connection is established and neither closed nor reset.
#[inline(always)]
pub const fn is_established(seen: u8) -> bool {
    seen & (TCP_OUT | TCP_IN) == TCP_OUT | TCP_IN && !is_over(seen)
}

#[inline(always)]
const fn is_over(seen: u8) -> bool {
    let closed = TCP_FIN_OUT | TCP_FIN_IN;
    seen & TCP_RESET != 0 || seen & closed == closed
}
