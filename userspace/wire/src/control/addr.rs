//! Addresses that may be absent: Go's zero `netip.Addr`, which is the empty string.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Go `netip.Addr`: an address, or the zero one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addr(pub Option<IpAddr>);

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        Self(Some(addr))
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(addr) => serializer.collect_str(&addr),
            None => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|addr| Self(Some(addr))).map_err(serde::de::Error::custom)
    }
}
