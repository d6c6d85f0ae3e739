//! What the rig's maps hold, for both sides: `bench/src/rig` includes this file.
//!
//! Values are plain words in the machine's byte order; packet bytes are in the network's.

/// Bytes at the start of a frame that are written anew for every packet.
pub(crate) const HEAD_LEN: usize = 128;
/// Frames may differ by so many flows.
pub(crate) const FLOWS: u32 = 16_384;
/// The test-run's frames are so much longer than the packets: each packet's tail is cut by it, because the kernel restores
/// a recycled frame only when its bounds were changed.
pub(crate) const SLACK: usize = 8;

/// Fields of `SOURCE`, what the generator is to do and how far it is.
#[allow(dead_code, reason = "each side uses some")]
pub(crate) mod source {
    /// Where frames are redirected to, an interface index.
    pub(crate) const DEVICE: usize = 0;
    /// Bytes of the head in use, less one.
    pub(crate) const HEAD_LAST: usize = 1;
    /// How many flows take turns.
    pub(crate) const FLOWS: usize = 2;
    /// The next flow.
    pub(crate) const NEXT: usize = 3;
    /// Packets between two looks at the clock.
    pub(crate) const BATCH: usize = 4;
    /// Packets left of this batch.
    pub(crate) const LEFT: usize = 5;
    /// Nanoseconds from one batch to the next; 0: no pacing.
    pub(crate) const GAP: usize = 6;
    /// When the next batch may start, in the kernel's monotonic nanoseconds.
    pub(crate) const DUE: usize = 7;
    /// Nanoseconds spent waiting for that.
    pub(crate) const WAITED: usize = 8;
    /// Number of fields.
    pub(crate) const COUNT: usize = 9;
}

/// What differs from flow to flow: UDP source port, UDP checksum, and the four bytes at [`TAG`], all as in the packet.
pub(crate) type Flow = [u16; 4];
/// Offset in the frame of a flow's own four bytes: the second half of a Geneve header, the VNI.
pub(crate) const TAG: usize = 46;

/// Packets and bytes.
pub(crate) type Count = [u64; 2];
/// Both MAC addresses as in the packet, then the interface index in two halves, the lower one first.
pub(crate) type Hop = [u16; 8];
