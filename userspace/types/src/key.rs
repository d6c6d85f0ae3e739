//! Curve25519 keys by role: a newtype each, so that a node key can never stand where a machine key belongs.
//!
//! Text forms are Tailscale's (`types/key`): a prefix and 64 hex digits. Private keys have no `Debug` and no serde, are
//! wiped when dropped, and leave only through [`NodePrivate::to_text`], for the state file.
//! Deliberately not here: random bytes (arguments) and NaCl boxes (`wire`).

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text does not start with the role's prefix.
    #[error("key does not start with {0:?}")]
    Prefix(&'static str),
    /// What follows the prefix is not 64 hex digits.
    #[error("key is not 64 hex digits after its prefix")]
    Digits,
}

fn parse(text: &str, prefix: &'static str) -> Result<[u8; 32], KeyError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyError::Digits)?;
    Ok(bytes)
}

/// The X25519 product of one private and one public key, before any key derivation. Secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(pub [u8; 32]);

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// What its text form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// From the 32 bytes of the curve point.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the curve point.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The zero key means "none" on every wire here.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 32]
            }

            /// Tailscale's short form in logs: `[` first five base64 digits `]`.
            pub fn short(&self) -> String {
                const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let bits = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
                let digits: String =
                    (0..5).map(|i| char::from(DIGITS[(bits >> (26 - 6 * i)) as usize & 63])).collect();
                format!("[{digits}]")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                parse(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        /// The empty string is the zero key: Go and Rust peers both send it for "none".
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                if text.is_empty() {
                    return Ok(Self::default());
                }
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

macro_rules! private_key {
    ($(#[$doc:meta])* $name:ident, $public:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From 32 random bytes; clamped as X25519 asks.
            pub fn from_random(mut bytes: [u8; 32]) -> Self {
                bytes[0] &= 248;
                bytes[31] = (bytes[31] & 127) | 64;
                Self(bytes)
            }

            /// Its public half.
            pub fn public(&self) -> $public {
                $public(PublicKey::from(&StaticSecret::from(self.0)).to_bytes())
            }

            /// The 32 secret bytes: for the kernel and for cryptography, never for a log.
            pub fn secret_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The X25519 product with `peer`; the caller derives keys from it.
            pub fn shared(&self, peer: &$public) -> SharedSecret {
                SharedSecret(StaticSecret::from(self.0).diffie_hellman(&PublicKey::from(peer.0)).to_bytes())
            }

            /// The secret's text form, for the state file only.
            pub fn to_text(&self) -> String {
                format!("{}{}", $prefix, hex::encode(self.0))
            }

            /// Back from [`Self::to_text`].
            ///
            /// # Errors
            /// When the prefix or the digits are wrong.
            pub fn from_text(text: &str) -> Result<Self, KeyError> {
                parse(text, $prefix).map(Self)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }
    };
}

public_key! {
    /// Names a node and is its WireGuard public key.
    NodePublic, "nodekey:"
}
private_key! {
    /// A node's WireGuard private key; rotates.
    NodePrivate, NodePublic, "privkey:"
}
public_key! {
    /// Names a machine to the coordination server.
    MachinePublic, "mkey:"
}
private_key! {
    /// A machine's identity towards control; also the server's own Noise key. Never rotates.
    MachinePrivate, MachinePublic, "privkey:"
}
public_key! {
    /// Names a node in DISCO messages.
    DiscoPublic, "discokey:"
}
private_key! {
    /// Opens and seals a node's DISCO messages.
    DiscoPrivate, DiscoPublic, "privkey:"
}
public_key! {
    /// The server's challenge in the early payload: proves possession of a node key.
    ChallengePublic, "chalpub:"
}
private_key! {
    /// The server's half of the challenge; one a connection.
    ChallengePrivate, ChallengePublic, "chalpriv:"
}

/// What the DERP servers of one region share: whoever shows it is one of them. Zero is "none".
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct MeshKey([u8; 32]);

impl MeshKey {
    /// Whether there is no key.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// 64 hex digits, as in derper's `--mesh-psk-file`; white space around them does not count.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        parse(text.trim(), "").map(Self)
    }
}

/// In constant time: how much of a guess is right must not be measurable.
impl PartialEq for MeshKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MeshKey {}

/// Sealed in the box of a DERP login, and nowhere else.
impl Serialize for MeshKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

/// The empty string is no key.
impl<'de> Deserialize<'de> for MeshKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::from_text(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_names_its_role() {
        let key = NodePrivate::from_random([7; 32]).public();
        assert!(key.to_string().starts_with("nodekey:"));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().parse::<DiscoPublic>(), Err(KeyError::Prefix("discokey:")));
        assert_eq!("nodekey:12".parse::<NodePublic>(), Err(KeyError::Digits));
    }

    #[test]
    fn both_sides_derive_the_same_secret() {
        let (a, b) = (DiscoPrivate::from_random([1; 32]), DiscoPrivate::from_random([2; 32]));
        assert_eq!(a.shared(&b.public()).0, b.shared(&a.public()).0);
    }

    #[test]
    fn short_form_is_the_first_digits_of_base64() {
        assert_eq!(NodePublic::from_bytes([0; 32]).short(), "[AAAAA]");
        assert_eq!(NodePublic::from_bytes([0xff; 32]).short(), "[/////]");
    }

    #[test]
    fn private_text_round_trips() {
        let key = MachinePrivate::from_random([9; 32]);
        assert!(MachinePrivate::from_text(&key.to_text()).unwrap() == key);
    }
}
