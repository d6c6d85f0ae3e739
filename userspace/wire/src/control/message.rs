//! How a message of Go's `tailcfg` is written down here: one `message!` block a struct.
//!
//! The macro exists because every field of every message needs the same three rules of Go's `encoding/json`, and a
//! field that lacks one of them is a bug only another implementation would find:
//! a missing field is its zero value, `null` is its zero value, and `omitempty` leaves the zero value out.
//! Names are Go's, in Go's order; further literals after `|` are spellings that other clients send (serde, unlike Go,
//! matches names exactly). Unknown fields are skipped.

use serde::{Deserialize, Deserializer};

/// Go decodes `null` into any field as "leave the zero value".
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's `omitempty` and `omitzero`.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! message {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                pub $field:ident: $ty:ty = $go:literal $(| $alias:literal)* $($omit:ident)?,
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $vis struct $name {
            $(
                $(#[$field_meta])*
                #[serde(
                    rename = $go,
                    $(alias = $alias,)*
                    deserialize_with = "crate::control::message::null_is_default"
                )]
                $(
                    #[doc = concat!("\n\nWire: `", stringify!($omit), "`.")]
                    #[serde(skip_serializing_if = "crate::control::message::is_default")]
                )?
                pub $field: $ty,
            )*
        }
    )*};
}
pub(super) use message;

#[cfg(test)]
mod tests {
    message! {
        /// A message.
        struct Sample {
            /// A list.
            pub list: Vec<u8> = "List",
            /// A flag another client spells differently.
            pub flag: Option<bool> = "FLAG" | "Flag" omitempty,
        }
    }

    #[test]
    fn null_missing_and_unknown_are_zero() {
        for text in ["{}", r#"{"List":null,"FLAG":null}"#, r#"{"Other":{"List":[1]}}"#] {
            assert_eq!(serde_json::from_str::<Sample>(text).unwrap(), Sample::default(), "{text}");
        }
    }

    #[test]
    fn alias_is_read_and_the_go_name_written() {
        let sample: Sample = serde_json::from_str(r#"{"Flag":false}"#).unwrap();
        assert_eq!(sample.flag, Some(false));
        assert_eq!(serde_json::to_string(&sample).unwrap(), r#"{"List":[],"FLAG":false}"#);
        assert_eq!(serde_json::to_string(&Sample::default()).unwrap(), r#"{"List":[]}"#);
    }
}
