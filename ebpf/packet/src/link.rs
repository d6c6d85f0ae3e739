//! A frame that can be changed: its network header and what follows, the length in front, and the Ethernet header.

use abi::Family;

use crate::FrameMut;

/// A frame with an Ethernet header in front, to be rewritten. Every call says `None` if it cannot be done.
pub trait LinkFrame: FrameMut {
    /// Moves the beginning of the network header: forward, so that the packet loses so many bytes in front, or back, if
    /// negative. What the first bytes then hold is undefined, and so is the Ethernet header.
    fn move_head(&mut self, by: i32) -> Option<()>;

    /// Cuts the packet to, or extends it to, `end` bytes from the network header.
    fn set_end(&mut self, end: usize) -> Option<()>;

    /// Writes the Ethernet header: both addresses, and the type that belongs to the family.
    fn set_link(&mut self, macs: &[u32; 3], family: Family) -> Option<()>;

    /// Both addresses of the Ethernet header.
    fn macs(&self) -> Option<[u32; 3]>;

    /// Sends the frame back where it came from: exchanges the Ethernet header's addresses.
    fn turn_link(&mut self) -> Option<()>;
}
