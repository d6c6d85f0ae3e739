//! A stock `tailscaled` in the lab, and the stock `tailscale` command: the real peers of the interop tests and the bench.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::server::Server;
use crate::until;

/// Where a Go program of Tailscale is: on PATH (xtask puts its cache first), in the cache, or in Go's own folder.
pub fn program(name: &str) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = [home.join(".cache/underpass/tools/bin"), home.join("go/bin")];
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Prints the line that counts as skipped when root or one of the Go `programs` is missing.
pub fn skipped(test: &str, programs: &[&str]) -> bool {
    if crate::skipped(test) {
        return true;
    }
    let missing: Vec<_> = programs.iter().filter(|name| program(name).is_none()).collect();
    if !missing.is_empty() {
        println!(
            "SKIPPED: {test}: {missing:?} not found; `cargo xtask setup` builds them where Go is installed"
        );
    }
    !missing.is_empty()
}

/// A running stock client.
pub struct Stock<'lab> {
    host: &'lab Namespace,
    state: PathBuf,
    /// The daemon, to kill it or to weigh it.
    pub process: Process,
}

impl<'lab> Stock<'lab> {
    /// Starts tailscaled on `host`, trusting `certificate`, with its own state and socket.
    ///
    /// # Errors
    /// When the program is absent or does not answer, with its log.
    pub fn start(
        host: &'lab Namespace,
        folder: &Path,
        tag: &str,
        certificate: &Path,
    ) -> anyhow::Result<Self> {
        let state = folder.join(format!("stock-{}", host.name()));
        std::fs::create_dir_all(&state)?;
        let mut device = format!("{tag}{}", host.name());
        device.truncate(15);
        let mut command = host.command(program("tailscaled").context("tailscaled is absent")?)?;
        command.args(["--port=41641", "--no-logs-no-support", "--tun", &device]);
        command.arg("--statedir").arg(&state).arg("--socket").arg(state.join("sock"));
        command.env("SSL_CERT_FILE", certificate).env("TS_DEBUG_FIREWALL_MODE", "nftables");
        let process = host.start("tailscaled", &mut command)?;
        let stock = Self { host, state, process };
        until("tailscaled opens its socket", Duration::from_secs(20), || {
            stock.socket().exists().then_some(())
        })
        .map_err(|error| error.context(stock.process.log()))?;
        Ok(stock)
    }

    /// The machine that it runs on.
    pub fn host(&self) -> &'lab Namespace {
        self.host
    }

    /// Its LocalAPI socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("sock")
    }

    /// Runs `tailscale ARGUMENTS` against this daemon, whatever the status.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        command_line(self.host, &self.socket(), arguments)
    }

    /// Runs `tailscale ARGUMENTS` and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.cli(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: tailscale {}: {}\n{text}{error}",
                self.host.name(),
                arguments.join(" "),
                output.status
            );
        }
        Ok(text)
    }

    /// Joins the lab's network; leaves the machine's DNS alone.
    ///
    /// # Errors
    /// When it does not reach Running.
    pub fn up(&self, key: &str, extra: &[&str]) -> anyhow::Result<()> {
        let url = Server::url();
        let name = self.host.name();
        let fixed = [
            "up",
            "--login-server",
            &url,
            "--auth-key",
            key,
            "--hostname",
            name,
            "--accept-dns=false",
            "--timeout=30s",
        ];
        let joined = self.run(&[&fixed, extra].concat());
        joined.map(drop).map_err(|error| error.context(self.process.log()))
    }

    /// `tailscale status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.cli(&["status", "--json"])?.stdout)?)
    }

    /// What its status says of the peer called `name`.
    ///
    /// # Errors
    /// When there is no such peer.
    pub fn peer(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let peers = status["Peer"].as_object().cloned().unwrap_or_default();
        let mut peers = peers.into_iter().map(|(_, peer)| peer);
        peers
            .find(|peer| peer["HostName"] == name)
            .with_context(|| format!("{} sees no peer {name}", self.host.name()))
    }

    /// The overlay address of the peer called `name`.
    ///
    /// # Errors
    /// When there is no such peer.
    pub fn peer_address(&self, name: &str) -> anyhow::Result<IpAddr> {
        Ok(self.peer(name)?["TailscaleIPs"][0].as_str().context("a peer has an address")?.parse()?)
    }

    /// One ICMP echo; whether it was answered within a second.
    pub fn ping(&self, address: IpAddr) -> bool {
        self.host.shell(&format!("ping -c 1 -W 1 {address}")).is_ok_and(|output| output.status.success())
    }
}

/// Runs the stock `tailscale` command on `host` against any LocalAPI socket, ours included.
///
/// # Errors
/// When the program cannot be started.
pub fn command_line(host: &Namespace, socket: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = host.command(program("tailscale").context("tailscale is absent")?)?;
    command.arg(format!("--socket={}", socket.display())).args(arguments);
    Ok(command.output()?)
}
