//! What Go's `encoding/json` does and serde does not: nil slices and maps, the zero time, the zero address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Collections that Go writes as `null` while nobody has appended to them.
pub(super) trait Collection: Default {
    /// Nothing in it.
    fn is_nil(&self) -> bool;
}

impl<T> Collection for Vec<T> {
    fn is_nil(&self) -> bool {
        self.is_empty()
    }
}

impl<K: Ord, V> Collection for BTreeMap<K, V> {
    fn is_nil(&self) -> bool {
        self.is_empty()
    }
}

/// `null` when empty, both ways.
pub(super) mod nil {
    use super::{Collection, Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::local) fn serialize<T: Collection + Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if value.is_nil() { serializer.serialize_none() } else { value.serialize(serializer) }
    }

    pub(in crate::local) fn deserialize<'de, T: Collection + Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or_default())
    }
}

/// `time.Time`: "never" is the year 1.
pub(super) mod time {
    use jiff::Timestamp;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    const ZERO: &str = "0001-01-01T00:00:00Z";

    #[expect(clippy::ref_option, reason = "the signature serde's `with` asks for")]
    pub(in crate::local) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time.serialize(serializer),
            None => serializer.serialize_str(ZERO),
        }
    }

    pub(in crate::local) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        if text.is_empty() || text == ZERO {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

/// `netip.Addr`: "none" is the empty string.
pub(super) mod addr {
    use super::{Deserialize, Deserializer, IpAddr, Serializer};

    #[expect(clippy::ref_option, reason = "the signature serde's `with` asks for")]
    pub(in crate::local) fn serialize<S: Serializer>(
        addr: &Option<IpAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match addr {
            Some(addr) => serializer.collect_str(addr),
            None => serializer.serialize_str(""),
        }
    }

    pub(in crate::local) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

/// Go's `omitempty` on a bool.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde's `skip_serializing_if` asks for")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

/// Go's `omitempty` on a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde's `skip_serializing_if` asks for")]
pub(super) fn is_zero(value: &u16) -> bool {
    *value == 0
}
