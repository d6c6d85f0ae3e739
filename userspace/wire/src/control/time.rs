//! Points in time as Go writes them: RFC 3339, with the year 1 for "never".

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What Go's zero `time.Time` looks like on the wire.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// A Go `time.Time`: a timestamp, or Go's zero time, which means "never" or "unknown".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Option<Timestamp>);

impl Time {
    /// Go's zero time.
    pub const ZERO: Self = Self(None);

    /// The timestamp, unless this is the zero time.
    pub fn get(self) -> Option<Timestamp> {
        self.0
    }

    /// Whether this is Go's zero time.
    pub fn is_zero(self) -> bool {
        self.0.is_none()
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(Some(at))
    }
}

impl From<Option<Timestamp>> for Time {
    fn from(at: Option<Timestamp>) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => at.fmt(f),
            None => f.write_str(ZERO),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    /// Any offset is accepted; the zero time in any spelling, and the empty string, are [`Time::ZERO`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() || text == ZERO {
            return Ok(Self::ZERO);
        }
        let at: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        let zero = ZERO.parse().ok();
        Ok(Self(Some(at).filter(|_| Some(at) != zero)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_spellings_are_read_and_written() {
        for (text, again) in [
            (r#""0001-01-01T00:00:00Z""#, r#""0001-01-01T00:00:00Z""#),
            (r#""0001-01-01T01:00:00+01:00""#, r#""0001-01-01T00:00:00Z""#),
            (r#""""#, r#""0001-01-01T00:00:00Z""#),
            (r#""1970-01-01T00:02:03Z""#, r#""1970-01-01T00:02:03Z""#),
            (r#""2026-03-01T12:00:00.5+02:00""#, r#""2026-03-01T10:00:00.5Z""#),
            (r#""2026-03-01T12:00:00.123456789Z""#, r#""2026-03-01T12:00:00.123456789Z""#),
        ] {
            let time: Time = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&time).unwrap(), again);
        }
        assert!(serde_json::from_str::<Time>(r#""yesterday""#).is_err());
    }
}
