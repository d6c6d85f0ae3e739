//! All commands, their common flag, and how each is run.

mod admin;
mod completion;
mod debug;
mod down;
mod ip;
mod logout;
mod metrics;
mod netcheck;
mod node;
mod paths;
mod peer;
mod ping;
mod relay;
mod server;
mod set;
mod status;
mod up;
mod version;
mod wait;
mod whois;
mod wireguard;

use std::future::Future;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use crate::client::Client;
use crate::exit;

/// A mesh network for Linux gateways, compatible with Tailscale: server, relay and node in one command.
#[derive(Parser)]
#[command(name = "underpass", version, propagate_version = true, after_help = exit::HELP)]
#[command(max_term_width = 110, infer_subcommands = false, arg_required_else_help = true)]
pub(crate) struct Underpass {
    /// Unix socket of the daemon to talk to, or to listen on. By default a node's is
    /// /run/underpass/underpass.sock and a server's /run/underpass/server.sock.
    #[arg(long, global = true, value_name = "PATH", env = "UNDERPASS_SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Connect this machine to its network, logging in if needed.
    Up(up::Up),
    /// Disconnect, keeping the login.
    Down(down::Down),
    /// Change single settings.
    Set(set::Set),
    /// Show this node, its peers and the paths to them.
    Status(status::StatusArgs),
    /// Ping a peer and show the path that the answer took.
    Ping(ping::Ping),
    /// Show overlay addresses, this node's or a peer's.
    Ip(ip::Ip),
    /// Show whose machine has an overlay address.
    Whois(whois::WhoIs),
    /// Measure the networks under this node.
    Netcheck(netcheck::NetcheckArgs),
    /// Disconnect and forget the login.
    Logout(logout::Logout),
    /// Wait until the node is up and its addresses can be bound.
    Wait(wait::Wait),
    /// Show counters in Prometheus' text format.
    Metrics(metrics::Metrics),
    /// Show the version of this command and of the node.
    Version(version::Version),
    /// Look inside: packet trace, netmap, prefs, the bus, paths.
    Debug(debug::Debug),
    /// Run the node, in the foreground.
    Node(node::NodeArgs),
    /// Run the coordination server, with DERP and STUN.
    Server(server::Server),
    /// Run a DERP and STUN server alone.
    Relay(relay::Relay),
    /// Administer a running server.
    Admin(admin::Admin),
    /// Print the completions of a shell.
    Completion(completion::Completion),
    /// Run the embedded WireGuard; the node starts it where the kernel has none.
    #[command(hide = true)]
    Wireguard(wireguard::Wireguard),
}

/// Runs the command that was parsed.
pub(crate) fn run(Underpass { socket, command }: Underpass) -> anyhow::Result<()> {
    let node = Client::new(socket.clone());
    match command {
        Command::Up(command) => ask(command.run(&node)),
        Command::Down(command) => ask(command.run(&node)),
        Command::Set(command) => ask(command.run(&node)),
        Command::Status(command) => ask(command.run(&node)),
        Command::Ping(command) => ask(command.run(&node)),
        Command::Ip(command) => ask(command.run(&node)),
        Command::Whois(command) => ask(command.run(&node)),
        Command::Netcheck(command) => ask(command.run(&node)),
        Command::Logout(command) => ask(command.run(&node)),
        Command::Wait(command) => ask(command.run(&node)),
        Command::Metrics(command) => ask(command.run(&node)),
        Command::Version(command) => ask(command.run(&node)),
        Command::Debug(command) => ask(command.run(&node)),
        Command::Admin(command) => ask(command.run(socket)),
        Command::Completion(command) => command.run(),
        Command::Node(command) => command.run(socket),
        Command::Server(command) => command.run(socket),
        Command::Relay(command) => command.run(),
        Command::Wireguard(command) => command.run(),
    }
}

/// Runs what only asks a daemon: one thread, started in well under a millisecond.
fn ask(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(command)
}
