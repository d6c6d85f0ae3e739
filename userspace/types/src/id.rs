//! Identifiers as the control protocol spells them. Numbers stay numbers in JSON, as in Go's tailcfg.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Go's `omitempty`: the zero id is absent on the wire.
            pub fn is_zero(&self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A node's number, unique in its network (`tailcfg.NodeID`).
    NodeId(i64)
}
number! {
    /// A user's number (`tailcfg.UserID`).
    UserId(i64)
}
number! {
    /// A DERP region's number; 0 is "none", 900-999 are for the network's own regions.
    RegionId(i32)
}
number! {
    /// What a client or server understands (`tailcfg.CapabilityVersion`).
    CapabilityVersion(u32)
}

impl CapabilityVersion {
    /// The version this code was written against and reports.
    pub const CURRENT: Self = Self(130);
}

/// The number of a pair's place on a peer relay: Geneve's Virtual Network Identifier, 24 bits (RFC 8926, section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The highest number.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The number, when it fits 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// As it stands in a header, big endian.
    pub const fn from_be_bytes([high, middle, low]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, high, middle, low]))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's stable text id (`tailcfg.StableNodeID`), opaque.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StableNodeId(pub String);

impl fmt::Display for StableNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
