//! A node as its peers and it itself see it, and the small change of one (`tailcfg.Node`, `tailcfg.PeerChange`).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use types::{
    CapabilityVersion, DiscoPublic, MachinePublic, NodeId, NodePublic, RegionId, StableNodeId, UserId,
};

use super::message::message;
use super::{Blob, CapMap, Hostinfo, Resolver, Time};

message! {
    /// A node. In `MapResponse::node` it is the reader itself, elsewhere a peer.
    pub struct Node {
        /// Number, unique in the network.
        pub id: NodeId = "ID",
        /// Text id, stable for the node's life.
        pub stable_id: StableNodeId = "StableID",
        /// Fully qualified name with a trailing dot; empty for a node shared into the network without one.
        pub name: String = "Name",
        /// Owner. Tagged nodes have a user that stands for all tagged nodes.
        pub user: UserId = "User",
        /// Who shared it into this network, if that is not its owner.
        pub sharer: UserId = "Sharer" omitzero,
        /// WireGuard public key.
        pub key: NodePublic = "Key",
        /// When the key stops being valid; zero is never.
        pub key_expiry: Time = "KeyExpiry" omitzero,
        /// Tailnet Lock's signature of the key.
        pub key_signature: Blob = "KeySignature" omitempty,
        /// Machine key; only the server and the node itself know it.
        pub machine: MachinePublic = "Machine" omitzero,
        /// DISCO key; zero for peers that speak no DISCO.
        pub disco_key: DiscoPublic = "DiscoKey" omitzero,
        /// Overlay addresses, each a /32 or /128.
        pub addresses: Vec<IpNet> = "Addresses",
        /// What may come from and go to it; `None` means its addresses (from version 112).
        pub allowed_ips: Option<Vec<IpNet>> = "AllowedIPs" omitzero,
        /// Underlay addresses it may be reached at.
        pub endpoints: Vec<SocketAddr> = "Endpoints" omitempty,
        /// Home region in the old form `127.3.3.40:N`; read by clients before version 111.
        pub legacy_derp: String = "DERP" omitzero,
        /// Home DERP region; see also [`Node::home_region`].
        pub home_derp: RegionId = "HomeDERP" omitzero,
        /// What the node reports about itself, reduced for peers.
        pub hostinfo: Option<Hostinfo> = "Hostinfo" omitzero,
        /// When it was registered.
        pub created: Time = "Created" omitzero,
        /// What its client understands.
        pub cap: CapabilityVersion = "Cap" omitzero,
        /// Tags, with the prefix `tag:`.
        pub tags: Vec<String> = "Tags" omitempty,
        /// The allowed prefixes for which this node, among several candidates, is the chosen one.
        pub primary_routes: Vec<IpNet> = "PrimaryRoutes" omitempty,
        /// When it was last connected; absent while it is online or when unknown.
        pub last_seen: Option<Time> = "LastSeen" omitempty,
        /// Whether it is connected to control; absent when the server does not say.
        pub online: Option<bool> = "Online" omitempty,
        /// Whether an administrator has let the machine in.
        pub machine_authorized: bool = "MachineAuthorized" omitempty,
        /// Capabilities as a list; the form before version 74.
        pub capabilities: Vec<String> = "Capabilities" omitempty,
        /// Capabilities with their values.
        pub cap_map: CapMap = "CapMap" omitempty,
        /// May be reached by its PeerAPI although Tailnet Lock has not signed it.
        pub unsigned_peer_api_only: bool = "UnsignedPeerAPIOnly" omitzero,
        /// Name for display, without the network's domain.
        pub computed_name: String = "ComputedName" omitzero,
        /// Name for display, with the host's own name when that differs.
        pub computed_name_with_host: String = "ComputedNameWithHost" omitzero,
        /// Where its flow logs go.
        pub data_plane_audit_log_id: String = "DataPlaneAuditLogID" omitzero,
        /// Whether the key has expired.
        pub expired: bool = "Expired" omitzero,
        /// The IPv4 address by which this peer knows the reader, if not its own.
        pub self_node_v4_masq_addr_for_this_peer: Option<IpAddr> = "SelfNodeV4MasqAddrForThisPeer" omitzero,
        /// The IPv6 address by which this peer knows the reader, if not its own.
        pub self_node_v6_masq_addr_for_this_peer: Option<IpAddr> = "SelfNodeV6MasqAddrForThisPeer" omitzero,
        /// A plain WireGuard peer: no DISCO, no DERP.
        pub is_wireguard_only: bool = "IsWireGuardOnly" omitzero,
        /// May not open connections to the reader.
        pub is_jailed: bool = "IsJailed" omitzero,
        /// Resolvers to use while a plain WireGuard peer is the exit node.
        pub exit_node_dns_resolvers: Vec<Resolver> = "ExitNodeDNSResolvers" omitempty,
    }

    /// A change of a known peer, cheaper than the whole node. Absent fields are unchanged.
    pub struct PeerChange {
        /// Whose change; unknown ids are ignored.
        pub node_id: NodeId = "NodeID",
        /// New home region.
        pub derp_region: RegionId = "DERPRegion" omitzero,
        /// New client version.
        pub cap: CapabilityVersion = "Cap" omitzero,
        /// New capabilities, replacing all.
        pub cap_map: Option<CapMap> = "CapMap" omitempty,
        /// New underlay addresses, replacing all; empty is unchanged.
        pub endpoints: Vec<SocketAddr> = "Endpoints" omitempty,
        /// New WireGuard key.
        pub key: Option<NodePublic> = "Key" omitzero,
        /// New signature of the key.
        pub key_signature: Blob = "KeySignature" omitempty,
        /// New DISCO key.
        pub disco_key: Option<DiscoPublic> = "DiscoKey" omitzero,
        /// Connected or not.
        pub online: Option<bool> = "Online" omitzero,
        /// New time of last contact.
        pub last_seen: Option<Time> = "LastSeen" omitzero,
        /// New key expiry; the zero time is never.
        pub key_expiry: Option<Time> = "KeyExpiry" omitzero,
    }
}

impl Node {
    /// The home region, from the new field or the old form; `None` when it has none.
    pub fn home_region(&self) -> Option<RegionId> {
        if !self.home_derp.is_zero() {
            return Some(self.home_derp);
        }
        let number = self.legacy_derp.strip_prefix("127.3.3.40:")?.parse().ok()?;
        Some(RegionId(number)).filter(|region| !region.is_zero())
    }

    /// What may come from it: the allowed prefixes, or its addresses when the server left them out.
    pub fn allowed(&self) -> &[IpNet] {
        self.allowed_ips.as_deref().unwrap_or(&self.addresses)
    }

    /// Whether a capability is granted, in either of the two forms.
    pub fn has_cap(&self, name: &str) -> bool {
        self.cap_map.contains(name) || self.capabilities.iter().any(|cap| cap == name)
    }
}
