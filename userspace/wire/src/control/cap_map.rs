//! Capability maps: names, each with a list of JSON values that only the capability's owner understands.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// JSON text kept as it came (Go's `tailcfg.RawMessage`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(Box<RawValue>);

impl Raw {
    /// The JSON text of `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form, such as a map whose keys are not strings.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The value the text stands for.
    ///
    /// # Errors
    /// When the text is not a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

impl PartialEq for Raw {
    /// Compares text: equal values in different spelling are different.
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

/// `tailcfg.NodeCapMap` and `tailcfg.PeerCapMap`. Most capabilities are flags: present, with no values.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct CapMap(pub BTreeMap<String, Vec<Raw>>);

impl CapMap {
    /// Whether the capability is there, with values or without.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there are no capabilities.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of `name` that are a `T`; others are skipped, as they are for a newer reader.
    pub fn values<'a, T: DeserializeOwned>(&'a self, name: &str) -> impl Iterator<Item = T> + use<'a, T> {
        self.0.get(name).into_iter().flatten().filter_map(|raw| raw.parse().ok())
    }
}

impl<S: Into<String>> FromIterator<S> for CapMap {
    /// Flags: capabilities without values.
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self(names.into_iter().map(|name| (name.into(), Vec::new())).collect())
    }
}

impl<'de> Deserialize<'de> for CapMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, Option<Vec<Raw>>>::deserialize(deserializer)?;
        Ok(Self(map.into_iter().map(|(name, values)| (name, values.unwrap_or_default())).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_values() {
        let map: CapMap =
            serde_json::from_str(r#"{"a":null,"b":[],"c":[{"x":1e400},{"x":2},"\u0026"]}"#).unwrap();
        assert!(map.contains("a") && map.contains("b"));
        assert_eq!(map.values::<String>("c").collect::<Vec<_>>(), ["&"]);
        assert_eq!(
            serde_json::to_string(&map).unwrap(),
            r#"{"a":[],"b":[],"c":[{"x":1e400},{"x":2},"\u0026"]}"#
        );
    }
}
