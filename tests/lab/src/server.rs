//! An `underpass server` in the lab, and its admin socket.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::until;

/// The public address of the lab's server.
pub const ADDRESS: &str = "203.0.113.10";

/// A running coordination server with embedded DERP and STUN.
pub struct Server<'lab> {
    host: &'lab Namespace,
    binary: PathBuf,
    state: PathBuf,
    /// The daemon, to kill it.
    pub process: Process,
}

impl<'lab> Server<'lab> {
    /// Starts it on `host` (203.0.113.10) with a self-signed certificate and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer in time, with its log.
    pub fn start(host: &'lab Namespace, folder: &Path, extra: &[&str]) -> anyhow::Result<Self> {
        let binary = crate::underpass()?;
        let state = folder.join("server");
        std::fs::create_dir_all(&state)?;
        let process = Self::launch(host, &binary, &state, extra)?;
        let mut server = Self { host, binary, state, process };
        server.ready()?;
        Ok(server)
    }

    fn launch(host: &Namespace, binary: &Path, state: &Path, extra: &[&str]) -> anyhow::Result<Process> {
        let mut command = host.command(binary)?;
        command.arg("server").arg("--state").arg(state).arg("--socket").arg(state.join("admin.sock"));
        command.args([
            "--url",
            &Self::url(),
            "--listen",
            &format!("{ADDRESS}:443"),
            "--stun",
            &format!("{ADDRESS}:3478"),
        ]);
        host.start("underpass", command.args(extra))
    }

    /// Starts it again on the same state, after it was ended.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn restart(&mut self, extra: &[&str]) -> anyhow::Result<()> {
        let _ = self.process.kill();
        self.process = Self::launch(self.host, &self.binary, &self.state, extra)?;
        self.ready()
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        let answer = until("the server answers its admin socket", Duration::from_secs(20), || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            self.admin(&["users", "list", "--json"]).is_ok().then_some(true)
        });
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the server ended:\n{}", self.process.log()),
            Err(error) => Err(error.context(self.process.log())),
        }
    }

    /// What nodes are told as `--login-server`.
    pub fn url() -> String {
        format!("https://{ADDRESS}")
    }

    /// The certificate that nodes must trust, as a PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.state.join("tls.crt")
    }

    /// Runs `underpass admin ARGUMENTS` and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary)
            .arg("admin")
            .arg("--socket")
            .arg(self.state.join("admin.sock"))
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!("underpass admin {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `underpass admin ARGUMENTS --json`.
    ///
    /// # Errors
    /// When it fails or prints something else than JSON.
    pub fn admin_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.admin(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("admin {arguments:?} printed {text:?}"))
    }

    /// Makes a user, if absent, and a reusable auth key of hers.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn auth_key(&self, user: &str, extra: &[&str]) -> anyhow::Result<String> {
        let _ = self.admin(&["users", "create", user]);
        let key = self.admin_json(&[&["keys", "create", "--user", user], extra].concat())?;
        Ok(key["key"].as_str().with_context(|| format!("no key in {key}"))?.to_owned())
    }
}
