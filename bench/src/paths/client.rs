//! A node of either kind, as far as the scenarios need it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Namespace, Node, Server, Stock, until};
use serde_json::Value;

use crate::stage::Stage;

const DEADLINE: Duration = Duration::from_secs(30);

/// Whose node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Ours,
    Stock,
}

/// A running node in the network.
pub(super) enum Client<'lab> {
    Ours(Node<'lab>),
    Stock(Stock<'lab>),
}

impl<'lab> Client<'lab> {
    /// One on each host, in one network, each knowing the other, without a packet between them.
    pub(super) fn pair(
        stage: &'lab Stage,
        hosts: &'lab [Namespace; 2],
        server: &Server<'_>,
        kind: Kind,
    ) -> anyhow::Result<[Self; 2]> {
        let key = server.auth_key("bench", &["--reusable"])?;
        let [a, b] = hosts.each_ref().map(|host| Self::start(stage, host, server, &key, kind));
        let pair = [a?, b?];
        for (client, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            until("the pair knows each other", DEADLINE, || {
                (client.peer(other).ok()?["Online"] == true).then_some(())
            })?;
        }
        Ok(pair)
    }

    /// One that relays for others.
    pub(super) fn relay(
        stage: &'lab Stage,
        host: &'lab Namespace,
        server: &Server<'_>,
        kind: Kind,
    ) -> anyhow::Result<Self> {
        let key = server.auth_key("bench", &["--reusable"])?;
        let relay = Self::start(stage, host, server, &key, kind)?;
        let set = ["set", "--relay-server-port=40000"];
        match &relay {
            Self::Ours(node) => node.run(&set)?,
            Self::Stock(node) => node.run(&set)?,
        };
        Ok(relay)
    }

    fn start(
        stage: &'lab Stage,
        host: &'lab Namespace,
        server: &Server<'_>,
        key: &str,
        kind: Kind,
    ) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Ours => {
                let node = stage.ours(host, server.certificate())?;
                node.up(key, &[])?;
                Self::Ours(node)
            }
            Kind::Stock => {
                let node = stage.stock(host, server.certificate()).map_err(anyhow::Error::msg)?;
                node.up(key, &[])?;
                Self::Stock(node)
            }
        })
    }

    pub(super) fn host(&self) -> &'lab Namespace {
        match self {
            Self::Ours(node) => node.host(),
            Self::Stock(node) => node.host(),
        }
    }

    fn status(&self) -> anyhow::Result<Value> {
        match self {
            Self::Ours(node) => node.status(),
            Self::Stock(node) => node.status(),
        }
    }

    pub(super) fn address(&self) -> anyhow::Result<IpAddr> {
        let status = self.status()?;
        let first = status["TailscaleIPs"][0].as_str().context("a running node has an address")?;
        Ok(first.parse()?)
    }

    /// What this one says of the other.
    fn peer(&self, other: &Self) -> anyhow::Result<Value> {
        let name = other.host().name();
        match self {
            Self::Ours(node) => node.peer(name),
            Self::Stock(node) => node.peer(name),
        }
    }

    /// Whether this one sends to the other by a peer relay.
    pub(super) fn is_peer_relayed(&self, other: &Self) -> bool {
        self.peer(other).is_ok_and(|peer| peer["PeerRelay"].as_str().is_some_and(|at| !at.is_empty()))
    }

    /// Whether this one sends to the other without a relay.
    pub(super) fn is_direct(&self, other: &Self) -> bool {
        self.peer(other).is_ok_and(|peer| peer["CurAddr"].as_str().is_some_and(|at| !at.is_empty()))
    }
}
