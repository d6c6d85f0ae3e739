//! How a checksum follows a change (RFC 1624), without looking at the rest of the packet.

/// A change of a ones' complement sum. Words are in memory order, which the sum does not mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(pub u32);

impl Delta {
    /// The change, and `old` becoming `new` besides.
    #[inline(always)]
    #[must_use]
    pub const fn swap(self, old: u32, new: u32) -> Self {
        Self(add(add(self.0, !old), new))
    }

    /// The change of whole addresses.
    #[inline(always)]
    #[must_use]
    pub const fn swap_address(self, old: &abi::Address, new: &abi::Address) -> Self {
        self.swap(old[0], new[0]).swap(old[1], new[1]).swap(old[2], new[2]).swap(old[3], new[3])
    }

    /// Whether checksums stay as they are.
    #[inline(always)]
    pub const fn is_neutral(self) -> bool {
        self.0 == 0 || self.0 == u32::MAX
    }

    /// The checksum field (in memory order) after the change: RFC 1624 equation 3.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        if self.is_neutral() {
            return checksum;
        }
        !fold(add(self.0, (!checksum) as u32))
    }

    /// The same for UDP, where zero means that there is no checksum (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            changed => changed,
        }
    }
}

#[inline(always)]
const fn add(a: u32, b: u32) -> u32 {
    let (sum, carried) = a.overflowing_add(b);
    sum.wrapping_add(carried as u32)
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}
