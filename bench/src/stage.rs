//! The stage that the timed benches share: our server, and public machines for our node and for a stock one.

use std::path::PathBuf;

use lab::{Internet, Lab, Namespace, Nat, Node, Server, Stock, node, stock};

/// The underlay of a bench.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    server: Namespace,
    internet: Internet,
}

impl Stage {
    pub(crate) fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server = internet.host(&lab, "server", 10)?;
        Ok(Self { lab, server, internet })
    }

    pub(crate) fn server(&self) -> anyhow::Result<Server<'_>> {
        Server::start(&self.server, self.lab.folder(), &[])
    }

    /// The server under a policy.
    pub(crate) fn server_with_policy(&self, policy: &str) -> anyhow::Result<Server<'_>> {
        let file = self.lab.folder().join("policy");
        std::fs::write(&file, policy)?;
        let file = file.to_string_lossy();
        Server::start(&self.server, self.lab.folder(), &["--policy", &file])
    }

    pub(crate) fn machine(&self, name: &str, address: u8) -> anyhow::Result<Namespace> {
        self.internet.host(&self.lab, name, address)
    }

    /// A port-restricted NAT for a site 192.0.2.`site`/25.
    pub(crate) fn nat(&self, name: &str, address: u8, site: u8) -> anyhow::Result<Nat> {
        self.internet.nat(&self.lab, name, address, site)
    }

    /// Gives `machine` a public device `wan`, beside what it has.
    pub(crate) fn plug(&self, machine: &Namespace, address: u8) -> anyhow::Result<()> {
        self.internet.plug(machine, address)
    }

    /// The switch that everybody public is on; the machine at 203.0.113.N is at its port `pN`.
    pub(crate) fn switch(&self) -> &Namespace {
        self.internet.switch()
    }

    /// Our daemon on `host`, answering.
    pub(crate) fn ours<'lab>(
        &'lab self,
        host: &'lab Namespace,
        certificate: PathBuf,
    ) -> anyhow::Result<Node<'lab>> {
        let mut node = self.boot(host, certificate)?;
        node.ready()?;
        Ok(node)
    }

    /// Our daemon on `host`, just started.
    pub(crate) fn boot<'lab>(
        &'lab self,
        host: &'lab Namespace,
        certificate: PathBuf,
    ) -> anyhow::Result<Node<'lab>> {
        let wrapper =
            std::env::var("WRAP").map(|w| w.split(' ').map(str::to_owned).collect()).unwrap_or_default();
        let options = node::Options { certificate: Some(certificate), wrapper, ..node::Options::default() };
        Node::boot(host, self.lab.folder(), self.lab.tag(), options)
    }

    /// A stock daemon on `host`, not joined; or why not.
    pub(crate) fn stock<'lab>(
        &'lab self,
        host: &'lab Namespace,
        certificate: PathBuf,
    ) -> Result<Stock<'lab>, String> {
        if stock::program("tailscaled").is_none() {
            return Err("not found (needs Go to build)".to_owned());
        }
        Stock::start(host, self.lab.folder(), self.lab.tag(), &certificate)
            .map_err(|error| format!("{error:#}"))
    }
}
