//! What a client learns of the server before it speaks to it: `GET /key`, and the early payload.

use types::{CapabilityVersion, ChallengePublic, MachinePublic, NodePublic};

use super::message::message;

message! {
    /// The answer to `GET /key?v=N` (`tailcfg.OverTLSPublicKeyResponse`).
    pub struct OverTlsPublicKeyResponse {
        /// Key of the protocol before Noise; zero here.
        pub legacy_public_key: MachinePublic = "legacyPublicKey",
        /// The server's Noise key.
        pub public_key: MachinePublic = "publicKey",
    }

    /// Sent through Noise before HTTP/2 (`tailcfg.EarlyNoise`).
    pub struct EarlyNoise {
        /// A node may prove its key by a box for this one.
        pub node_key_challenge: ChallengePublic = "nodeKeyChallenge",
    }

    /// `POST /machine/id-token` (`tailcfg.TokenRequest`).
    pub struct TokenRequest {
        /// What the client understands.
        pub cap_version: CapabilityVersion = "CapVersion",
        /// Who asks.
        pub node_key: NodePublic = "NodeKey",
        /// Whom the token is for.
        pub audience: String = "Audience",
    }

    /// The answer.
    pub struct TokenResponse {
        /// A signed JWT.
        pub id_token: String = "id_token",
    }
}
