//! What client and server tell each other once, as JSON in a NaCl box between their node keys.

use serde::{Deserialize, Serialize};
use types::MeshKey;

use super::{Error, VERSION};
use crate::nacl::{NONCE_LEN, SharedBox};

/// A client about itself. Not to be printed: it may hold the mesh key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The protocol version it speaks.
    #[serde(rename = "version", alias = "Version", skip_serializing_if = "is_zero")]
    pub version: u32,
    /// Shows that the client is another server of the region.
    #[serde(rename = "meshKey", skip_serializing_if = "MeshKey::is_zero")]
    pub mesh_key: MeshKey,
    /// Whether it answers [`super::Frame::Ping`].
    #[serde(rename = "CanAckPings", alias = "canAckPings")]
    pub can_ack_pings: bool,
    /// Whether it only measures.
    #[serde(rename = "IsProber", alias = "isProber", skip_serializing_if = "std::ops::Not::not")]
    pub is_prober: bool,
    /// The program's name, for statistics.
    #[serde(rename = "AppName", alias = "appName", skip_serializing_if = "String::is_empty")]
    pub app_name: String,
}

/// The server about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// The protocol version it speaks.
    #[serde(rename = "version", alias = "Version", skip_serializing_if = "is_zero")]
    pub version: u32,
    /// Bytes a second it accepts from this client, headers included; 0 is unspecified.
    #[serde(rename = "TokenBucketBytesPerSecond", skip_serializing_if = "is_zero")]
    pub bytes_per_second: u32,
    /// Bytes it accepts beyond that at once; 0 is unspecified.
    #[serde(rename = "TokenBucketBytesBurst", skip_serializing_if = "is_zero")]
    pub bytes_burst: u32,
}

macro_rules! sealed {
    ($name:ident) => {
        impl $name {
            /// Nonce and box for the other side. `nonce` is random.
            pub fn seal(&self, shared: &SharedBox, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
                let json = serde_json::to_vec(self).expect("plain fields always serialize");
                let mut sealed = Vec::new();
                shared.seal(nonce, &json, &mut sealed);
                sealed
            }

            /// Reads nonce and box of the other side.
            ///
            /// # Errors
            /// When the box does not open, which disproves the other side's key, or is not JSON.
            pub fn open(shared: &SharedBox, sealed: &[u8]) -> Result<Self, Error> {
                let json = shared.open(sealed).ok_or(Error::Sealed)?;
                serde_json::from_slice(&json).map_err(|e| Error::Info(e.to_string()))
            }
        }
    };
}
sealed!(ClientInfo);
sealed!(ServerInfo);

impl ClientInfo {
    /// What our node says of itself.
    pub fn node(app_name: &str) -> Self {
        Self { version: VERSION, can_ack_pings: true, app_name: app_name.to_owned(), ..Self::default() }
    }

    /// What a server says of itself to another one of its region.
    pub fn mesh(app_name: &str, mesh_key: MeshKey) -> Self {
        Self { mesh_key, ..Self::node(app_name) }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
