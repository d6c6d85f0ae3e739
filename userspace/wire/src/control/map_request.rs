//! `POST /machine/map`, the request (`tailcfg.MapRequest`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use types::{CapabilityVersion, DiscoPublic, NodePublic};

use super::message::message;
use super::{Blob, Hostinfo, Time};

message! {
    /// Asks for the network map, once or as a stream, or reports endpoints and host information.
    pub struct MapRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version",
        /// `zstd`, or empty for plain JSON.
        pub compress: String = "Compress" omitzero,
        /// Whether the server shall send keep-alives.
        pub keep_alive: bool = "KeepAlive" omitzero,
        /// Who asks; must be registered by the machine of this connection.
        pub node_key: NodePublic = "NodeKey",
        /// The node's DISCO key.
        pub disco_key: DiscoPublic = "DiscoKey",
        /// Key in hardware, text form.
        pub hardware_attestation_key: String = "HardwareAttestationKey" omitzero,
        /// Signature by that key.
        pub hardware_attestation_key_signature: Blob = "HardwareAttestationKeySignature" omitempty,
        /// When it was made.
        pub hardware_attestation_key_signature_timestamp: Time
            = "HardwareAttestationKeySignatureTimestamp" omitzero,
        /// Long poll. From version 68 a streaming request is read-only: the server ignores what it reports.
        pub stream: bool = "Stream" omitzero,
        /// The machine.
        pub hostinfo: Option<Hostinfo> = "Hostinfo" | "HostInfo",
        /// Resume the session of this handle.
        pub map_session_handle: String = "MapSessionHandle" omitzero,
        /// The last message seen of that session.
        pub map_session_seq: i64 = "MapSessionSeq" omitzero,
        /// Underlay addresses of the node.
        pub endpoints: Vec<SocketAddr> = "Endpoints" omitempty,
        /// Where each of them came from, index by index.
        pub endpoint_types: Vec<EndpointType> = "EndpointTypes" omitempty,
        /// Head of the Tailnet Lock chain.
        pub tka_head: String = "TKAHead" | "TkaHead" omitzero,
        /// Old form of a request that changes nothing; false from version 68.
        pub read_only: bool = "ReadOnly" omitzero,
        /// No peers wanted; with `stream` false this is a lite update that disturbs no stream.
        pub omit_peers: bool = "OmitPeers" omitzero,
        /// Such as `warn-ip-forwarding-off`.
        pub debug_flags: Vec<String> = "DebugFlags" omitempty,
        /// Names this connection in a server's tests.
        pub connection_handle_for_test: String = "ConnectionHandleForTest" omitzero,
    }
}

/// Where an endpoint came from (`tailcfg.EndpointType`); an unknown number stays what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointType(pub i32);

impl EndpointType {
    /// Unknown.
    pub const UNKNOWN: Self = Self(0);
    /// An address of a local interface.
    pub const LOCAL: Self = Self(1);
    /// Learnt by STUN.
    pub const STUN: Self = Self(2);
    /// Mapped by the router (NAT-PMP, PCP, UPnP).
    pub const PORTMAPPED: Self = Self(3);
    /// STUN's address with the local port: a router that forwards one fixed port.
    pub const STUN_4_LOCAL_PORT: Self = Self(4);
    /// Configured by hand.
    pub const EXPLICIT: Self = Self(5);
}
