//! The user's settings and the edits to them (`ipn/prefs.go`).
//!
//! One table makes the struct, the names of its fields and the masked edit: adding a pref is one line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use types::StableNodeId;

use super::go;
use crate::control::{Addr, UserProfile};

macro_rules! prefs {
    ($($(#[doc = $doc:expr])* $(#[serde $serde:tt])* $name:literal $variant:ident $field:ident: $type:ty;)*) => {
        /// Everything a user may set on a node. `Default` is Go's zero value; see [`Prefs::new`] for a fresh node's.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Prefs {
            $($(#[doc = $doc])* $(#[serde $serde])* #[serde(rename = $name)] pub $field: $type,)*
            /// What registration left behind; read-only for clients, and without keys.
            #[serde(rename = "Config")]
            pub persist: Option<Persist>,
        }

        /// The name of one pref: what an edit's mask is made of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Pref {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Pref {
            /// Every pref, in the order of the JSON.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in the JSON; the mask's is this and `Set`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl Prefs {
            fn copy(&mut self, pref: Pref, from: &Self) {
                match pref { $(Pref::$variant => self.$field.clone_from(&from.$field),)* }
            }

            /// Whether both agree on `pref`.
            pub fn agrees(&self, other: &Self, pref: Pref) -> bool {
                match pref { $(Pref::$variant => self.$field == other.$field,)* }
            }
        }
    };
}

prefs! {
    /// URL of the coordination server; empty until the first `up`.
    "ControlURL" ControlUrl control_url: String;
    /// Accept subnet routes of other nodes.
    "RouteAll" RouteAll route_all: bool;
    /// The exit node, by id.
    "ExitNodeID" ExitNodeId exit_node_id: StableNodeId;
    /// The exit node, by address, until the netmap tells its id.
    "ExitNodeIP" ExitNodeIp exit_node_ip: Addr;
    /// `any`: let the node choose an exit node.
    #[serde(skip_serializing_if = "String::is_empty")]
    "AutoExitNode" AutoExitNode auto_exit_node: String;
    /// The exit node before the current one; clients cannot set it.
    "InternalExitNodePrior" InternalExitNodePrior internal_exit_node_prior: StableNodeId;
    /// Reach the local network directly while using an exit node.
    "ExitNodeAllowLANAccess" ExitNodeAllowLanAccess exit_node_allow_lan_access: bool;
    /// Use the network's DNS settings.
    "CorpDNS" CorpDns corp_dns: bool;
    /// Run an SSH server; not offered here.
    "RunSSH" RunSsh run_ssh: bool;
    /// Serve the web client; not offered here.
    "RunWebClient" RunWebClient run_web_client: bool;
    /// Whether the tunnel should be up.
    "WantRunning" WantRunning want_running: bool;
    /// The user logged out on purpose.
    "LoggedOut" LoggedOut logged_out: bool;
    /// Refuse every inbound connection, whatever the policy says.
    "ShieldsUp" ShieldsUp shields_up: bool;
    /// Tags to ask for.
    #[serde(with = "go::nil")]
    "AdvertiseTags" AdvertiseTags advertise_tags: Vec<String>;
    /// Hostname to announce; empty for the machine's.
    "Hostname" Hostname hostname: String;
    /// Windows only.
    "NotepadURLs" NotepadUrls notepad_urls: bool;
    /// Windows only.
    #[serde(skip_serializing_if = "go::is_false")]
    "ForceDaemon" ForceDaemon force_daemon: bool;
    /// A debug flag of Tailscale's.
    #[serde(skip_serializing_if = "go::is_false")]
    "Egg" Egg egg: bool;
    /// Prefixes behind this node; both default routes make it an exit node.
    #[serde(with = "go::nil")]
    "AdvertiseRoutes" AdvertiseRoutes advertise_routes: Vec<IpNet>;
    /// Services this node can serve; not offered here.
    #[serde(with = "go::nil")]
    "AdvertiseServices" AdvertiseServices advertise_services: Vec<String>;
    /// Follow control at all; unset is yes.
    "Sync" Sync sync: Option<bool>;
    /// Keep the peers' source addresses on traffic to advertised routes.
    "NoSNAT" NoSnat no_snat: bool;
    /// Do not track connections of forwarded traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    "NoStatefulFiltering" NoStatefulFiltering no_stateful_filtering: Option<bool>;
    /// How much of netfilter to manage.
    "NetfilterMode" NetfilterMode netfilter_mode: NetfilterMode;
    /// The local user, besides root, who may change settings.
    #[serde(skip_serializing_if = "String::is_empty")]
    "OperatorUser" OperatorUser operator_user: String;
    /// The profile's display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    "ProfileName" ProfileName profile_name: String;
    /// Updates of the software; its mask is a struct of its own ([`AutoUpdateMask`]).
    "AutoUpdate" AutoUpdate auto_update: AutoUpdatePrefs;
    /// App connector; not offered here.
    "AppConnector" AppConnector app_connector: AppConnectorPrefs;
    /// Report device posture; not offered here.
    "PostureChecking" PostureChecking posture_checking: bool;
    /// `nftables`, `iptables` or empty; we always use nftables.
    "NetfilterKind" NetfilterKind netfilter_kind: String;
    /// Let control edit these prefs; not offered here.
    "RemoteConfig" RemoteConfig remote_config: bool;
    /// Taildrive shares, kept as they are; not offered here.
    #[serde(with = "go::nil")]
    "DriveShares" DriveShares drive_shares: Vec<serde_json::Value>;
    /// UDP port of the peer relay server; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    "RelayServerPort" RelayServerPort relay_server_port: Option<u16>;
    /// Addresses the peer relay server is reached at from outside.
    #[serde(with = "go::nil", skip_serializing_if = "Vec::is_empty")]
    "RelayServerStaticEndpoints" RelayServerStaticEndpoints relay_server_static_endpoints: Vec<SocketAddr>;
}

impl Prefs {
    /// A fresh node's settings on Linux (`ipn.NewPrefs`).
    pub fn new() -> Self {
        Self {
            corp_dns: true,
            netfilter_mode: NetfilterMode::On,
            no_stateful_filtering: Some(true),
            auto_update: AutoUpdatePrefs { check: true, apply: None },
            ..Self::default()
        }
    }

    /// Takes over every field that `edit` names.
    pub fn apply(&mut self, edit: &MaskedPrefs) {
        for &pref in &edit.set {
            self.copy(pref, &edit.prefs);
        }
        if edit.auto_update.check {
            self.auto_update.check = edit.prefs.auto_update.check;
        }
        if edit.auto_update.apply {
            self.auto_update.apply = edit.prefs.auto_update.apply;
        }
    }

    /// Whether both default routes are advertised.
    pub fn advertises_exit_node(&self) -> bool {
        types::overlay::EXIT_ROUTES.iter().all(|route| self.advertise_routes.contains(route))
    }

    /// The advertised routes that are not default routes.
    pub fn subnet_routes(&self) -> impl Iterator<Item = &IpNet> {
        self.advertise_routes.iter().filter(|route| route.prefix_len() != 0)
    }
}

/// How much netfilter the node manages (`types/preftype`); a number on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetfilterMode {
    /// None.
    #[default]
    Off,
    /// Tables of its own, not called from the main chains.
    NoDivert,
    /// Everything.
    On,
}

impl NetfilterMode {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoDivert => "nodivert",
            Self::On => "on",
        }
    }
}

impl Serialize for NetfilterMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for NetfilterMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Off),
            1 => Ok(Self::NoDivert),
            2 => Ok(Self::On),
            n => Err(serde::de::Error::custom(format!("{n} is not a netfilter mode (0 to 2)"))),
        }
    }
}

/// Updates of the software.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AutoUpdatePrefs {
    /// Look for updates.
    pub check: bool,
    /// Install them; unset leaves it to the network's default.
    pub apply: Option<bool>,
}

/// Which halves of [`AutoUpdatePrefs`] an edit sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoUpdateMask {
    /// `Check`.
    #[serde(rename = "CheckSet", skip_serializing_if = "go::is_false")]
    pub check: bool,
    /// `Apply`.
    #[serde(rename = "ApplySet", skip_serializing_if = "go::is_false")]
    pub apply: bool,
}

/// App connector settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppConnectorPrefs {
    /// Offer this node as an app connector.
    pub advertise: bool,
}

/// What a registration leaves in the prefs (`types/persist`), as a client may see it: the keys always read as zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Persist {
    #[serde(rename = "PrivateNodeKey", skip_deserializing)]
    private_node_key: ZeroKey<32>,
    #[serde(rename = "OldPrivateNodeKey", skip_deserializing)]
    old_private_node_key: ZeroKey<32>,
    /// Who the node is registered to. The stock `tailscale up` takes an empty login name for "never logged in".
    #[serde(rename = "UserProfile")]
    pub user_profile: UserProfile,
    #[serde(rename = "NetworkLockKey", skip_deserializing)]
    network_lock_key: ZeroKey<64>,
    /// Our own stable id.
    #[serde(rename = "NodeID")]
    pub node_id: StableNodeId,
}

impl Persist {
    /// What clients see of a registration.
    pub fn new(user_profile: UserProfile, node_id: StableNodeId) -> Self {
        Self { user_profile, node_id, ..Self::default() }
    }
}

/// A private key that was taken out: as many zeros as the key has digits. 32 bytes for Curve25519, 64 for Tailnet Lock's
/// Ed25519 keys; the stock client refuses any other length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ZeroKey<const BYTES: usize>;

impl<const BYTES: usize> Serialize for ZeroKey<BYTES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let prefix = if BYTES == 64 { "nlpriv" } else { "privkey" };
        serializer.collect_str(&format_args!("{prefix}:{:0digits$}", 0, digits = 2 * BYTES))
    }
}

/// An edit: values, and which of them count. `FooSet: true` beside `Foo` in the JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskedPrefs {
    /// The new values; only those named in the masks count.
    pub prefs: Prefs,
    /// The prefs to take over.
    pub set: BTreeSet<Pref>,
    /// The halves of `AutoUpdate` to take over.
    pub auto_update: AutoUpdateMask,
}

impl MaskedPrefs {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.auto_update == AutoUpdateMask::default()
    }
}

#[derive(Serialize)]
struct MaskedPrefsJson<'a> {
    #[serde(flatten)]
    prefs: &'a Prefs,
    #[serde(flatten)]
    set: BTreeMap<String, bool>,
    #[serde(rename = "AutoUpdateSet", skip_serializing_if = "Option::is_none")]
    auto_update: Option<AutoUpdateMask>,
}

impl Serialize for MaskedPrefs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MaskedPrefsJson {
            prefs: &self.prefs,
            set: self.set.iter().map(|pref| (format!("{}Set", pref.name()), true)).collect(),
            auto_update: (self.auto_update != AutoUpdateMask::default()).then_some(self.auto_update),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MaskedPrefs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let auto_update = match fields.remove("AutoUpdateSet") {
            Some(mask) => AutoUpdateMask::deserialize(mask).map_err(D::Error::custom)?,
            None => AutoUpdateMask::default(),
        };
        let mut set = BTreeSet::new();
        for &pref in Pref::ALL {
            match fields.remove(&format!("{}Set", pref.name())) {
                Some(serde_json::Value::Bool(true)) => _ = set.insert(pref),
                None | Some(serde_json::Value::Bool(false) | serde_json::Value::Null) => {}
                Some(_) => return Err(D::Error::custom(format!("{}Set is not a boolean", pref.name()))),
            }
        }
        let prefs = Prefs::deserialize(serde_json::Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(Self { prefs, set, auto_update })
    }
}
