//! `underpass node`: the daemon. Its work is `node::run`; here are its flags.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, Args};
use node::{
    Config, DEFAULT_DEVICE, DEFAULT_FLOWS, DEFAULT_PORT, DEFAULT_RULE_PRIORITY, DEFAULT_TABLE,
    DEFAULT_UNDERLAY_TABLE, FastPath, Steer, WireguardMode,
};
use tokio::runtime::Builder;

use crate::client::DEFAULT_SOCKET;
use crate::exit::DaemonFailed;
use crate::logging::Verbosity;

/// `underpass node`
#[derive(Args)]
#[command(
    long_about = "Run the node, in the foreground. It needs root.\n\nEnding it leaves the tunnel as it is: packets keep \
moving, and the next start takes over. `underpass down` takes the tunnel away.",
    after_help = "Exit codes: 0 ended by a signal; 1 failed; 2 wrong usage or configuration; 3 not root; 4 the kernel \
lacks something; 5 the device name is taken; 6 port or socket in use; 7 the state file cannot be used."
)]
pub(crate) struct NodeArgs {
    /// Folder of keys, settings and the cached netmap.
    #[arg(long, value_name = "DIR", env = "UNDERPASS_STATE", default_value = "/var/lib/underpass")]
    state: PathBuf,
    /// Name of the WireGuard device.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_DEVICE)]
    device: String,
    /// UDP port of WireGuard, DISCO and STUN; 0 lets the kernel choose once.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Which WireGuard moves the packets: the kernel's, the embedded one, or whichever there is.
    #[arg(long, value_name = "kernel|embedded|auto", default_value = "auto", env = "UNDERPASS_WIREGUARD")]
    wireguard: WireguardMode,
    /// Where packets of peers are recognized: ahead of the kernel's stack (XDP, where the driver has it), in it (TC), or
    /// XDP on the uplinks where it costs nothing else. `status` shows what is done on each device, and why.
    #[arg(long, value_name = "auto|xdp|tc", default_value = "auto")]
    steer: Steer,
    /// Drop handshakes that were not made for this node, and DISCO and STUN that come too often, ahead of WireGuard.
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set)]
    shield: bool,
    /// Routing table of our own.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_TABLE)]
    table: u32,
    /// Routing table of our own for routes to peers by one of several uplinks.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_UNDERLAY_TABLE)]
    underlay_table: u32,
    /// Priority of the first of our routing rules.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_RULE_PRIORITY)]
    rule_priority: u32,
    /// Ask the router for a port that is reachable from outside, by PCP, NAT-PMP or UPnP [env: TS_DISABLE_PORTMAPPER=true
    /// switches it off, too].
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    port_mapping: bool,
    /// The gateway's short way past the kernel's stack: auto uses it where it can, off leaves all to the stack.
    #[arg(long, value_name = "auto|off", default_value = "auto", env = "UNDERPASS_FASTPATH")]
    fastpath: FastPath,
    /// Flows through the gateway at a time, 64 to 65536; a new one beyond that is refused with ICMP.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_FLOWS)]
    #[arg(value_parser = clap::value_parser!(u32).range(64..=i64::from(DEFAULT_FLOWS)))]
    flows: u32,
    /// An address that leads to this node's port, as a port that the router forwards; peers try it. May be repeated.
    #[arg(long = "static-endpoint", value_name = "IP:PORT")]
    static_endpoints: Vec<SocketAddr>,
    /// Settings from a file in Tailscale's format (HuJSON, "version": "alpha0").
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    verbosity: Verbosity,
}

impl NodeArgs {
    pub(crate) fn run(self, socket: Option<PathBuf>) -> anyhow::Result<()> {
        self.verbosity.start();
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        let config = Config {
            state_dir: self.state,
            socket: socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            device: self.device,
            port: self.port,
            wireguard: self.wireguard,
            embedded_command: vec![program.into(), OsString::from("wireguard"), OsString::from("--device")],
            steer: self.steer,
            shield: self.shield,
            table: self.table,
            underlay_table: self.underlay_table,
            rule_priority: self.rule_priority,
            static_endpoints: self.static_endpoints,
            port_mapping: self.port_mapping && !is_set("TS_DISABLE_PORTMAPPER"),
            fast_path: self.fastpath,
            flows: self.flows,
            config_file: self.config,
        };
        // One thread: the kernel moves the packets, and what is left is one event loop.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(node::run(config))
            .map_err(|error| DaemonFailed { code: error.exit_code(), message: error.to_string() }.into())
    }
}

/// Whether a switch of Tailscale's is on in the environment (`envknob.Bool`).
fn is_set(name: &str) -> bool {
    std::env::var(name)
        .is_ok_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}
