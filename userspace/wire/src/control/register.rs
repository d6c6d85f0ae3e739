//! `POST /machine/register` (`tailcfg.RegisterRequest`, `tailcfg.RegisterResponse`).

use std::fmt;

use serde::{Deserialize, Serialize};
use types::{CapabilityVersion, NodePublic};

use super::message::message;
use super::{Blob, Hostinfo, Login, Time, User};

message! {
    /// Binds a node key to the machine whose Noise connection carries the request.
    pub struct RegisterRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version",
        /// The key to register.
        pub node_key: NodePublic = "NodeKey",
        /// The key it replaces; zero for a first registration.
        pub old_node_key: NodePublic = "OldNodeKey",
        /// Tailnet Lock public key, `nlpub:` and hex; empty for a client without one.
        pub nl_key: String = "NLKey" omitzero,
        /// How the user authenticates; absent for interactive login and for a plain re-registration.
        pub auth: Option<RegisterAuth> = "Auth" omitempty,
        /// Wished expiry; in the past it is a logout, zero leaves it to the server.
        pub expiry: Time = "Expiry",
        /// The `AuthURL` of an earlier answer: the server holds this request until the user is done there.
        pub followup: String = "Followup",
        /// The machine.
        pub hostinfo: Option<Hostinfo> = "Hostinfo" | "HostInfo",
        /// Forget the node soon after it is gone.
        pub ephemeral: bool = "Ephemeral" omitempty,
        /// Tailnet Lock's signature of the node key.
        pub node_key_signature: Blob = "NodeKeySignature" omitempty,
        /// How the fields below sign the request, such as `signature-v2`; empty is not at all.
        pub signature_type: String = "SignatureType" omitempty,
        /// When it was signed.
        pub timestamp: Option<Time> = "Timestamp" omitempty,
        /// X.509 certificate of the device.
        pub device_cert: Blob = "DeviceCert" omitempty,
        /// Signature by that certificate.
        pub signature: Blob = "Signature" omitempty,
        /// Network wished for, where a user has several.
        pub tailnet: String = "Tailnet" omitempty,
    }

    /// How a registration authenticates.
    pub struct RegisterAuth {
        /// A pre-authentication key.
        pub auth_key: AuthKey = "AuthKey" omitempty,
    }

    /// The server's answer.
    pub struct RegisterResponse {
        /// Whom the node belongs to.
        pub user: User = "User",
        /// The login used.
        pub login: Login = "Login",
        /// The node key has expired: make a new one and register again.
        pub node_key_expired: bool = "NodeKeyExpired",
        /// An administrator has let the machine in.
        pub machine_authorized: bool = "MachineAuthorized",
        /// Non-empty: the user must open this page.
        pub auth_url: String = "AuthURL",
        /// Signature made for a rotated key.
        pub node_key_signature: Blob = "NodeKeySignature" omitempty,
        /// Non-empty: why not, to be shown to the user as it is.
        pub error: String = "Error",
    }
}

/// A pre-authentication key. Secret: whoever has it can join, so it has no readable `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthKey(pub String);

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "AuthKey(none)" } else { "AuthKey(hidden)" })
    }
}
