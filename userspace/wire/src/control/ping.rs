//! The server's questions to a node (`tailcfg.PingRequest`) and the results it gets back.

use types::RegionId;

use super::message::message;
use super::{Addr, Blob};

message! {
    /// A question in a map response.
    pub struct PingRequest {
        /// Where the answer goes, new for each question. Without `types` the answer is a bare HEAD.
        pub url: String = "URL",
        /// Answer through Noise.
        pub url_is_noise: bool = "URLIsNoise" omitzero,
        /// Log successes too.
        pub log: bool = "Log" omitzero,
        /// `c2n`, or a list of ping types: `disco,TSMP,ICMP,peerapi`.
        pub types: String = "Types" omitzero,
        /// Whom to ping.
        pub ip: Addr = "IP" omitzero,
        /// For `c2n`: an HTTP/1.x request in wire form, to be answered in wire form.
        pub payload: Blob = "Payload" omitempty,
    }

    /// The result of a ping, posted to the question's URL.
    pub struct PingResponse {
        /// Type of the ping.
        pub kind: String = "Type",
        /// Whom it went to.
        pub ip: String = "IP" omitempty,
        /// Overlay address of the node that answered.
        pub node_ip: String = "NodeIP" omitempty,
        /// Its name.
        pub node_name: String = "NodeName" omitempty,
        /// Why it failed.
        pub err: String = "Err" omitempty,
        /// Round trip in seconds.
        pub latency_seconds: f64 = "LatencySeconds" omitempty,
        /// Underlay address, when direct.
        pub endpoint: String = "Endpoint" omitempty,
        /// Peer relay's address and VNI, when through one.
        pub peer_relay: String = "PeerRelay" omitempty,
        /// Region, when through DERP.
        pub derp_region_id: RegionId = "DERPRegionID" omitempty,
        /// Its short name.
        pub derp_region_code: String = "DERPRegionCode" omitempty,
        /// Port of the PeerAPI, for a PeerAPI ping.
        pub peer_api_port: u16 = "PeerAPIPort" omitempty,
        /// The target was the node itself.
        pub is_local_ip: bool = "IsLocalIP" omitempty,
    }
}
