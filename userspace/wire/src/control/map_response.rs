//! `POST /machine/map`, one message of the answer (`tailcfg.MapResponse`): a full map or a delta.
//!
//! Absent means unchanged, everywhere. Deliberately not here: applying a delta (node-core) and framing (`framing`).

use std::collections::BTreeMap;

use types::NodeId;

use super::message::message;
use super::{
    Addr, DerpMap, DisplayMessage, DnsConfig, FilterRule, Node, PeerChange, PingRequest, Raw, Time, Tolerant,
    UserProfile,
};

message! {
    /// One message of a map stream.
    pub struct MapResponse {
        /// Opaque name of this session, to resume it; in the first message only.
        pub map_session_handle: String = "MapSessionHandle" omitempty,
        /// Number of this message in the session.
        pub seq: i64 = "Seq" omitempty,
        /// Nothing but a sign of life; all else but `control_time` and `ping_request` is absent.
        pub keep_alive: bool = "KeepAlive" omitempty,
        /// A question to answer.
        pub ping_request: Option<PingRequest> = "PingRequest" omitempty,
        /// A page to show to the user.
        pub pop_browser_url: String = "PopBrowserURL" omitempty,
        /// The node itself; always in a session's first message.
        pub node: Option<Node> = "Node" omitempty,
        /// The relays.
        pub derp_map: Option<DerpMap> = "DERPMap" omitempty,
        /// All peers, sorted by id. An empty list is no list: it replaces nothing.
        pub peers: Tolerant<Node> = "Peers" omitempty,
        /// Peers that are new or changed.
        pub peers_changed: Tolerant<Node> = "PeersChanged" omitempty,
        /// Peers that are gone.
        pub peers_removed: Vec<NodeId> = "PeersRemoved" omitempty,
        /// Small changes of peers, applied after the lists above.
        pub peers_changed_patch: Tolerant<PeerChange> = "PeersChangedPatch" omitempty,
        /// True: last seen now. False: gone.
        pub peer_seen_change: BTreeMap<NodeId, bool> = "PeerSeenChange" omitempty,
        /// Connected or not.
        pub online_change: BTreeMap<NodeId, bool> = "OnlineChange" omitempty,
        /// Name resolution.
        pub dns_config: Option<DnsConfig> = "DNSConfig" omitempty,
        /// Name of the network.
        pub domain: String = "Domain" omitempty,
        /// Report local services.
        pub collect_services: Option<bool> = "CollectServices" omitempty,
        /// The whole packet filter under the name `base`; an empty list blocks everything.
        pub packet_filter: Option<Vec<FilterRule>> = "PacketFilter" omitempty,
        /// Named parts of the packet filter. `None` deletes a part; the name `*` with `None` first deletes all.
        pub packet_filters: BTreeMap<String, Option<Vec<FilterRule>>> = "PacketFilters" omitempty,
        /// Users that are new or changed.
        pub user_profiles: Tolerant<UserProfile> = "UserProfiles" omitempty,
        /// Troubles the server sees, all of them; an empty list is well again.
        pub health: Option<Vec<String>> = "Health" omitempty,
        /// Messages for the user by id, a patch. `None` deletes one; the id `*` with `None` first deletes all.
        pub display_messages: BTreeMap<String, Option<DisplayMessage>> = "DisplayMessages" omitempty,
        /// Who may log in by SSH, as it came.
        pub ssh_policy: Option<Raw> = "SSHPolicy" omitempty,
        /// The server's clock.
        pub control_time: Option<Time> = "ControlTime" omitempty,
        /// Tailnet Lock.
        pub tka_info: Option<TkaInfo> = "TKAInfo" omitempty,
        /// Where flow logs go.
        pub domain_data_plane_audit_log_id: String = "DomainDataPlaneAuditLogID" omitempty,
        /// Switches for this node.
        pub debug: Option<DebugSettings> = "Debug" omitempty,
        /// How to reach the server without DNS.
        pub control_dial_plan: Option<ControlDialPlan> = "ControlDialPlan" omitempty,
        /// Whether the client is up to date.
        pub client_version: Option<ClientVersion> = "ClientVersion" omitempty,
        /// Old form of a node capability.
        pub default_auto_update: Option<bool> = "DefaultAutoUpdate" omitempty,
    }

    /// The server's view of Tailnet Lock.
    pub struct TkaInfo {
        /// Head of the chain.
        pub head: String = "Head" omitempty,
        /// Switched off.
        pub disabled: bool = "Disabled" omitempty,
    }

    /// Switches the server sets on a node (`tailcfg.Debug`).
    pub struct DebugSettings {
        /// Wait so long before going on.
        pub sleep_seconds: f64 = "SleepSeconds" omitempty,
        /// Upload no logs.
        pub disable_log_tail: bool = "DisableLogTail" omitempty,
        /// End with this code.
        pub exit: Option<i32> = "Exit" omitempty,
    }

    /// Addresses of the server, to be tried beside DNS.
    pub struct ControlDialPlan {
        /// In order of priority.
        pub candidates: Vec<ControlIpCandidate> = "Candidates",
    }

    /// One of them.
    pub struct ControlIpCandidate {
        /// The address.
        pub ip: Addr = "IP" omitzero,
        /// Go through this proxy instead.
        pub ace_host: String = "ACEHost" omitempty,
        /// Start so many seconds after the first.
        pub dial_start_delay_sec: f64 = "DialStartDelaySec" omitempty,
        /// Give up after so many seconds.
        pub dial_timeout_sec: f64 = "DialTimeoutSec" omitempty,
        /// Higher first.
        pub priority: i64 = "Priority" omitempty,
    }

    /// What the server knows of newer clients.
    pub struct ClientVersion {
        /// Nothing newer.
        pub running_latest: bool = "RunningLatest" omitempty,
        /// The newest.
        pub latest_version: String = "LatestVersion" omitempty,
        /// It mends a security hole.
        pub urgent_security_update: bool = "UrgentSecurityUpdate" omitempty,
        /// Tell the user.
        pub notify: bool = "Notify" omitempty,
        /// Page to show.
        pub notify_url: String = "NotifyURL" omitempty,
        /// Text to show.
        pub notify_text: String = "NotifyText" omitempty,
    }
}

impl MapResponse {
    /// From the JSON of one frame. Entries that could not be read are named by [`MapResponse::lost`].
    ///
    /// # Errors
    /// When the message as a whole is not a map response.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// What was lost in decoding: the field and why, one text an entry.
    pub fn lost(&self) -> impl Iterator<Item = String> {
        [
            ("Peers", &self.peers.lost),
            ("PeersChanged", &self.peers_changed.lost),
            ("PeersChangedPatch", &self.peers_changed_patch.lost),
            ("UserProfiles", &self.user_profiles.lost),
        ]
        .into_iter()
        .flat_map(|(field, lost)| lost.iter().map(move |why| format!("{field}, {why}")))
    }
}
