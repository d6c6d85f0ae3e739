//! An `underpass node` in the lab, driven by the same command line a person uses.

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

/// What differs between the nodes of a lab.
#[derive(Clone, Default)]
pub struct Options {
    /// Certificate to trust besides the system's.
    pub certificate: Option<PathBuf>,
    /// More flags of `underpass node`.
    pub flags: Vec<String>,
    /// A program and its first arguments, which then becomes the node: `env`, `unshare`, `setpriv`.
    pub wrapper: Vec<String>,
}

/// A running node.
pub struct Node<'lab> {
    host: &'lab Namespace,
    binary: PathBuf,
    state: PathBuf,
    device: String,
    options: Options,
    /// The controller, to kill it.
    pub process: Process,
}

impl<'lab> Node<'lab> {
    /// Starts the daemon on `host` and waits until its socket answers.
    ///
    /// # Errors
    /// When it does not answer in time, with its log.
    pub fn start(host: &'lab Namespace, folder: &Path, tag: &str, options: Options) -> anyhow::Result<Self> {
        let mut node = Self::boot(host, folder, tag, options)?;
        node.ready()?;
        Ok(node)
    }

    /// Starts the daemon on `host` and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn boot(host: &'lab Namespace, folder: &Path, tag: &str, options: Options) -> anyhow::Result<Self> {
        let binary = crate::underpass()?;
        let state = folder.join(format!("node-{}", host.name()));
        std::fs::create_dir_all(&state)?;
        // The embedded WireGuard's socket lies in one folder for all namespaces, so the device's name is unique on the machine.
        let mut device = format!("{tag}{}", host.name());
        device.truncate(15);
        let process = Self::launch(host, &binary, &state, &device, &options)?;
        Ok(Self { host, binary, state, device, options, process })
    }

    fn launch(
        host: &Namespace,
        binary: &Path,
        state: &Path,
        device: &str,
        options: &Options,
    ) -> anyhow::Result<Process> {
        let mut command = match options.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = host.command(program)?;
                command.args(arguments).arg(binary);
                command
            }
            None => host.command(binary)?,
        };
        command.arg("node").arg("--state").arg(state).arg("--socket").arg(state.join("node.sock"));
        command.args(["--device", device]);
        if let Some(certificate) = &options.certificate {
            command.env("SSL_CERT_FILE", certificate);
        }
        host.start("underpass", command.args(&options.flags))
    }

    /// The flags of the next [`Self::relaunch`].
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.options.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts the daemon again on the same state, after it was ended. Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn relaunch(&mut self) -> anyhow::Result<()> {
        self.process = Self::launch(self.host, &self.binary, &self.state, &self.device, &self.options)?;
        Ok(())
    }

    /// Waits until the LocalAPI answers.
    ///
    /// # Errors
    /// When it does not answer in time, with the daemon's log.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        let answer = until("the node answers its socket", Duration::from_secs(20), || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            self.status().is_ok().then_some(true)
        });
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the node {} ended:\n{}", self.host.name(), self.process.log()),
            Err(error) => Err(error.context(self.process.log())),
        }
    }

    /// The machine that it runs on.
    pub fn host(&self) -> &'lab Namespace {
        self.host
    }

    /// Its WireGuard device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its LocalAPI socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("node.sock")
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Runs `underpass ARGUMENTS` against this node, whatever the status.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.host.command(&self.binary)?;
        let (verb, rest) = arguments.split_first().context("a verb")?;
        command.arg(verb).arg("--socket").arg(self.socket()).args(rest);
        Ok(command.output()?)
    }

    /// Runs `underpass ARGUMENTS` and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.cli(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: underpass {}: {}\n{text}{error}",
                self.host.name(),
                arguments.join(" "),
                output.status
            );
        }
        Ok(text)
    }

    /// Joins the lab's network.
    ///
    /// # Errors
    /// When it does not reach Running.
    pub fn up(&self, key: &str, extra: &[&str]) -> anyhow::Result<()> {
        let url = Server::url();
        let joined = self.run(
            &[&["up", "--login-server", &url, "--auth-key", key, "--hostname", self.host.name()], extra]
                .concat(),
        );
        joined.map(drop).map_err(|error| error.context(self.process.log()))
    }

    /// `underpass status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> anyhow::Result<Value> {
        let output = self.cli(&["status", "--json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("status printed {text:?} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Its first overlay address of the family.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, v6: bool) -> anyhow::Result<IpAddr> {
        let status = self.status()?;
        let addresses = status["TailscaleIPs"].as_array().cloned().unwrap_or_default();
        addresses
            .iter()
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .find(|address| address.is_ipv6() == v6)
            .with_context(|| format!("no address in {status}"))
    }

    /// What this node's status says of the peer called `name`.
    ///
    /// # Errors
    /// When the status has no such peer.
    pub fn peer(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let peers = status["Peer"].as_object().cloned().unwrap_or_default();
        peers
            .into_iter()
            .map(|(_, peer)| peer)
            .find(|peer| peer["HostName"] == name)
            .with_context(|| format!("{} sees no peer {name}", self.host.name()))
    }

    /// Waits until the path to `name` is direct, while packets keep it in use; returns the endpoint.
    ///
    /// # Errors
    /// When it stays relayed.
    pub fn direct(&self, name: &str, deadline: Duration) -> anyhow::Result<String> {
        let address = self.peer_address(name)?;
        until(&format!("{} has a direct path to {name}", self.host.name()), deadline, || {
            self.ping(address);
            let endpoint = self.peer(name).ok()?["CurAddr"].as_str()?.to_owned();
            (!endpoint.is_empty()).then_some(endpoint)
        })
    }

    /// The overlay address of the peer called `name`.
    ///
    /// # Errors
    /// When the status has no such peer.
    pub fn peer_address(&self, name: &str) -> anyhow::Result<IpAddr> {
        let peer = self.peer(name)?;
        let first = peer["TailscaleIPs"][0].as_str().context("a peer has an address")?;
        Ok(first.parse()?)
    }

    /// One ICMP echo to `address` from this machine; whether it was answered within a second.
    pub fn ping(&self, address: IpAddr) -> bool {
        self.host.shell(&format!("ping -c 1 -W 1 {address}")).is_ok_and(|output| output.status.success())
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        // An embedded WireGuard ends with its device.
        let _ = self.host.ip(&format!("link del {}", self.device));
        crate::namespace::forget(&self.device);
    }
}
