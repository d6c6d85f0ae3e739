//! What the network is made of: users, auth keys, nodes. Plain values; every one of them is stored as it is here.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use types::overlay::EXIT_ROUTES;
use types::{CapabilityVersion, DiscoPublic, MachinePublic, NodeId, NodePublic, RegionId, UserId};
use wire::control::Hostinfo;

use crate::addresses::Addresses;

/// Who owns nodes and is named in the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number, never reused.
    pub id: UserId,
    /// Its name, unique.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
}

/// The number of an auth key, never reused; part of the key's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub i64);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A pre-authentication key: whoever shows it may join. Its secret is not here, only the secret's hash.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthKey {
    /// Its number.
    pub id: KeyId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Whose nodes it admits.
    pub user: UserId,
    /// Tags its nodes get; empty for nodes of the user.
    pub tags: Vec<String>,
    /// Its nodes are deleted some time after they disconnect.
    pub ephemeral: bool,
    /// How many registrations it admits; none for any number.
    pub uses_limit: Option<u32>,
    /// How many it has admitted.
    pub uses: u32,
    /// When it was created.
    pub created: Timestamp,
    /// When it stops working; none for never.
    pub expires: Option<Timestamp>,
    /// An administrator withdrew it.
    pub revoked: bool,
}

/// What an auth key is good for. In order of what is reported when several hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// An administrator withdrew it.
    Revoked,
    /// Its time is over.
    Expired,
    /// Every use it had is spent.
    Used,
    /// It admits nodes.
    Valid,
}

impl AuthKey {
    /// What it is good for at `now`.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked {
            KeyState::Revoked
        } else if self.expires.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else if self.uses_limit.is_some_and(|limit| self.uses >= limit) {
            KeyState::Used
        } else {
            KeyState::Valid
        }
    }
}

/// A registered node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its number, never reused.
    pub id: NodeId,
    /// The machine whose Noise key every request of the node must come under.
    pub machine_key: MachinePublic,
    /// Its WireGuard key.
    pub node_key: NodePublic,
    /// Its DISCO key; zero until it reports one.
    pub disco_key: DiscoPublic,
    /// Who owns it; for a tagged node, who created its key.
    pub user: UserId,
    /// Its tags, sorted; a tagged node acts as its tags, not as its user.
    pub tags: Vec<String>,
    /// The key that admitted it last.
    pub auth_key: Option<KeyId>,
    /// Its name in the network: a DNS label, unique.
    pub name: String,
    /// An administrator chose the name: it no longer follows the host's.
    pub named_by_admin: bool,
    /// Its overlay addresses.
    pub addresses: Addresses,
    /// What it says about itself.
    pub hostinfo: Hostinfo,
    /// Where it can be reached outside the overlay.
    pub endpoints: Vec<SocketAddr>,
    /// What its client understands.
    pub cap: CapabilityVersion,
    /// When it registered first.
    pub created: Timestamp,
    /// When its key expires; none for never.
    pub expires: Option<Timestamp>,
    /// When it was last connected; none while it is, or when it never was.
    pub last_seen: Option<Timestamp>,
    /// It is deleted some time after it disconnects.
    pub ephemeral: bool,
    /// Routes an administrator or the policy lets it serve, sorted; offered or not.
    pub approved_routes: Vec<IpNet>,
}

impl Node {
    /// Whether its key has expired at `now`.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Its overlay addresses, IPv4 first.
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.addresses.v4.into(), self.addresses.v6.into()]
    }

    /// Its home DERP region; 0 for none yet.
    pub fn home_region(&self) -> RegionId {
        self.hostinfo.net_info.as_ref().map(|info| info.preferred_derp).unwrap_or_default()
    }

    /// The routes it offers and may serve.
    pub fn routes(&self) -> impl Iterator<Item = IpNet> {
        self.hostinfo.routable_ips.iter().copied().filter(|net| self.approved_routes.contains(net))
    }

    /// Of those, the subnet routes.
    pub fn subnet_routes(&self) -> impl Iterator<Item = IpNet> {
        self.routes().filter(|net| !EXIT_ROUTES.contains(net))
    }

    /// Whether it offers to be an exit node and may.
    pub fn is_exit(&self) -> bool {
        self.routes().any(|net| EXIT_ROUTES.contains(&net))
    }
}
