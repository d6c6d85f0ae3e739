//! What the daemon is started with. Everything that can change while it runs is a preference instead (`backend`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use dataplane::Steer;

/// UDP port of WireGuard, DISCO and STUN when nothing else is asked for, as Tailscale's.
pub const DEFAULT_PORT: u16 = 41641;
/// Name of the WireGuard device when nothing else is asked for.
pub const DEFAULT_DEVICE: &str = "underpass0";
/// Our own routing table, as Tailscale's: tools that know one know the other.
pub const DEFAULT_TABLE: u32 = 52;
/// The table of routes to peers by one of several uplinks.
pub const DEFAULT_UNDERLAY_TABLE: u32 = 53;
/// Priority of the first of our rules; the others follow at +20, +40 and +60, as Tailscale's.
pub const DEFAULT_RULE_PRIORITY: u32 = 5210;

/// Which WireGuard moves the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireguardMode {
    /// The kernel's, else the embedded one.
    #[default]
    Auto,
    /// The kernel's, else an error.
    Kernel,
    /// The embedded one, in a process of its own.
    Embedded,
}

impl std::str::FromStr for WireguardMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "embedded" => Ok(Self::Embedded),
            other => Err(format!("{other:?} is not kernel, embedded or auto")),
        }
    }
}

/// Whether packets may take the gateway's short way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPath {
    /// Where a LAN device can, while there is something to forward.
    #[default]
    Auto,
    /// Never: the kernel's stack forwards and netfilter translates.
    Off,
}

impl std::str::FromStr for FastPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?} is not auto or off")),
        }
    }
}

/// How [`crate::run`] is to run. Plain data; the command line fills it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the state file and the cached netmap; created with mode 0700.
    pub state_dir: PathBuf,
    /// Path of the local API's unix socket.
    pub socket: PathBuf,
    /// Name of the WireGuard device, at most 15 bytes.
    pub device: String,
    /// UDP port of WireGuard; 0 lets the kernel choose, once: the choice is kept in the state file.
    pub port: u16,
    /// Kernel or embedded WireGuard.
    pub wireguard: WireguardMode,
    /// Command that runs the embedded WireGuard in the foreground; the device name is appended as the last argument.
    /// Usually `[current_exe, "wireguard", "--device"]`.
    pub embedded_command: Vec<OsString>,
    /// Our own routing table.
    pub table: u32,
    /// The table of routes to peers by one of several uplinks; only our own packets ask it.
    pub underlay_table: u32,
    /// Priority of our first rule.
    pub rule_priority: u32,
    /// Whether packets may take the gateway's short way.
    pub fast_path: FastPath,
    /// Flows through the gateway at a time.
    pub flows: u32,
    /// XDP or TC on the underlay's devices.
    pub steer: Steer,
    /// Ask the router that the port be reachable from outside.
    pub port_mapping: bool,
    /// Addresses that lead to our port, as a forwarded port of the router does; told to peers as they are.
    pub static_endpoints: Vec<SocketAddr>,
    /// Drop what cannot be valid, and what comes too often, ahead of WireGuard.
    pub shield: bool,
    /// A declarative configuration in Tailscale's `version: alpha0` format; it fills the preferences at start.
    pub config_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/underpass".into(),
            socket: "/run/underpass/underpass.sock".into(),
            device: DEFAULT_DEVICE.into(),
            port: DEFAULT_PORT,
            wireguard: WireguardMode::Auto,
            embedded_command: Vec::new(),
            table: DEFAULT_TABLE,
            underlay_table: DEFAULT_UNDERLAY_TABLE,
            rule_priority: DEFAULT_RULE_PRIORITY,
            fast_path: FastPath::default(),
            flows: dataplane::DEFAULT_FLOWS,
            steer: Steer::Auto,
            port_mapping: true,
            static_endpoints: Vec::new(),
            shield: true,
            config_file: None,
        }
    }
}
