//! Which outer port an inner port gets (RFC 4787 sections 4.2.1 and 4.2.2).

/// Ports tried for one mapping.
pub(super) const TRIES: u32 = 24;

/// The outer port to try at this turn, host order. The first is the inner port itself where it lies in the range; parity
/// is always kept. `first` is even and `last` is odd. Later turns jump about, the way differing with `salt`.
#[inline(always)]
pub const fn candidate(inner: u16, first: u16, last: u16, salt: u32, turn: u32) -> u16 {
    let size = (last as u32 + 1).wrapping_sub(first as u32);
    if size == 0 || size > 0x1_0000 {
        return first;
    }
    let start = if inner >= first && inner <= last { inner as u32 - first as u32 } else { inner as u32 };
    let jump = if turn == 0 { 0 } else { (salt ^ turn.wrapping_mul(0x9e37_79b1)) >> 8 };
    // Both are below 2^25: no overflow.
    (first as u32 + (start + 2 * jump) % size) as u16
}
