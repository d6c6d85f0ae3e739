//! What Go's `encoding/json` does and serde does not, beyond `control::message`: nil slices and maps are `null`.

use std::collections::BTreeMap;

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

/// Go's `netip.AddrPort`: the empty text is none.
pub(super) mod addr_port {
    use std::borrow::Cow;
    use std::net::SocketAddr;

    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serializer};

    pub(in crate::local) fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(addr) => serializer.collect_str(addr),
            None => serializer.serialize_str(""),
        }
    }

    pub(in crate::local) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        match Option::<Cow<'de, str>>::deserialize(deserializer)? {
            Some(text) if !text.is_empty() => text.parse().map(Some).map_err(D::Error::custom),
            _ => Ok(None),
        }
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

/// Go's `omitzero` on a time.
pub(super) fn is_never(time: &crate::control::Time) -> bool {
    time.is_zero()
}
