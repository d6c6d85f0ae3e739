//! What goes wrong in the hands of a person, each with one clear message: what, where, what to do.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::{Internet, Lab, Namespace, Node, Process, Server, node, until};

mod devices;
mod kernel;
mod login;
mod policy;
mod state;
mod strangers;
mod taken;

const SOON: Duration = Duration::from_secs(30);

/// Two public machines beside the server, nothing of ours running.
struct Bench {
    lab: Lab,
    server_host: Namespace,
    host: Namespace,
    other: Namespace,
    _internet: Internet,
}

impl Bench {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server_host = internet.host(&lab, "server", 10)?;
        let host = internet.host(&lab, "n", 50)?;
        let other = internet.host(&lab, "o", 51)?;
        Ok(Self { lab, server_host, host, other, _internet: internet })
    }

    fn server(&self, extra: &[&str]) -> anyhow::Result<Server<'_>> {
        Server::start(&self.server_host, self.lab.folder(), extra)
    }

    /// A server that shall not start: what it printed.
    fn failed_server(&self, extra: &[&str]) -> anyhow::Result<Output> {
        let state = self.lab.folder().join("failing");
        let mut server = self.server_host.command(lab::underpass()?)?;
        server.arg("server").arg("--state").arg(&state).arg("--socket").arg(state.join("admin.sock"));
        ended(server.args(["--url", &Server::url()]).args(extra))
    }

    /// One more server on the same machine, with its own ports and state.
    fn another_server(&self, url: &str, port: u16, extra: &[&str]) -> anyhow::Result<Process> {
        let name = format!("server-{port}");
        let state = self.lab.folder().join(&name);
        let mut server = self.server_host.command(lab::underpass()?)?;
        server.arg("server").arg("--state").arg(&state).arg("--socket").arg(state.join("admin.sock"));
        server.args(["--url", url, "--listen", &format!("203.0.113.10:{port}")]);
        let server = self
            .server_host
            .start(&name, server.args(["--stun", &format!("203.0.113.10:{port}")]).args(extra))?;
        listening(&self.server_host, port)?;
        Ok(server)
    }

    fn node(&self, server: &Server<'_>) -> anyhow::Result<Node<'_>> {
        self.node_on(&self.host, server, node::Options::default())
    }

    fn node_on<'lab>(
        &'lab self,
        host: &'lab Namespace,
        server: &Server<'_>,
        options: node::Options,
    ) -> anyhow::Result<Node<'lab>> {
        let certificate = options.certificate.or_else(|| Some(server.certificate()));
        Node::start(host, self.lab.folder(), self.lab.tag(), node::Options { certificate, ..options })
    }

    /// A node that shall not start: what it printed.
    fn failed_node(&self, flags: &[&str]) -> anyhow::Result<Output> {
        let state = self.lab.folder().join("failing");
        let mut node = self.host.command(lab::underpass()?)?;
        node.arg("node").arg("--state").arg(&state).arg("--socket").arg(state.join("node.sock"));
        ended(node.args(flags))
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.lab.folder().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

fn listening(host: &Namespace, port: u16) -> anyhow::Result<()> {
    let listeners = format!("ss -Hltn sport = :{port}");
    until(&format!("{} listens on {port}", host.name()), SOON, || {
        (!host.sh(&listeners).ok()?.is_empty()).then_some(())
    })
}

/// The output of a program that shall end by itself, and is ended if it does not.
fn ended(command: &mut Command) -> anyhow::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if until("the program ends", SOON, || child.try_wait().ok().flatten()).is_err() {
        child.kill()?;
    }
    Ok(child.wait_with_output()?)
}

/// A failed command says all of `words` on standard error, and its status is not 0.
#[track_caller]
fn complains(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// Waits until `status` shows a health warning with all of `words`.
fn warns(node: &Node<'_>, words: &[&str]) -> anyhow::Result<()> {
    until(&format!("{} warns of {words:?}", node.host().name()), SOON, || {
        let status = node.status().ok()?;
        let texts = status["Health"].as_array()?.iter().filter_map(|text| text.as_str());
        texts.into_iter().any(|text| words.iter().all(|word| text.contains(word))).then_some(())
    })
    .map_err(|error| error.context(node.run(&["status"]).unwrap_or_default()).context(node.process.log()))
}
