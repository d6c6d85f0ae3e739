//! The underlay: a switch that everybody public is on, and NATs with sites behind them.

use std::net::Ipv4Addr;

use crate::namespace::{Lab, Namespace};

/// The public network, 203.0.113.0/24 and 2001:db8:cafe::/64.
pub struct Internet {
    switch: Namespace,
}

impl Internet {
    /// An empty public network.
    ///
    /// # Errors
    /// When the namespace or the bridge cannot be made.
    pub fn new(lab: &Lab) -> anyhow::Result<Self> {
        let switch = lab.namespace("inet")?;
        switch.ip("link add switch type bridge")?;
        switch.ip("link set switch up")?;
        Ok(Self { switch })
    }

    /// A machine with the public address 203.0.113.`host`.
    ///
    /// # Errors
    /// When a link or address is refused.
    pub fn host(&self, lab: &Lab, name: &str, host: u8) -> anyhow::Result<Namespace> {
        let machine = lab.namespace(name)?;
        self.plug(&machine, host)?;
        Ok(machine)
    }

    /// Connects `machine` by a device `wan` with the address 203.0.113.`host`.
    ///
    /// # Errors
    /// When a link or address is refused.
    pub fn plug(&self, machine: &Namespace, host: u8) -> anyhow::Result<()> {
        let port = format!("p{host}");
        // The kernel takes a removed namespace's devices away in its own time; the next machine there must not wait.
        let _ = self.switch.ip(&format!("link del {port}"));
        self.switch.ip(&format!("link add {port} type veth peer name wan netns {}", machine.full_name()))?;
        self.switch.ip(&format!("link set {port} master switch up"))?;
        machine.ip(&format!("addr add 203.0.113.{host}/24 dev wan"))?;
        machine.ip("link set wan up").map(drop)
    }

    /// A NAT at 203.0.113.`host`, for a site 192.0.2.`site`/25.
    ///
    /// # Errors
    /// When a link, address or rule is refused.
    pub fn nat(&self, lab: &Lab, name: &str, host: u8, site: u8) -> anyhow::Result<Nat> {
        let router = lab.namespace(name)?;
        self.plug(&router, host)?;
        router.write_sysctl("net/ipv4/ip_forward", "1")?;
        router.ip("link add lan type bridge")?;
        router.ip(&format!("addr add 192.0.2.{}/25 dev lan", site + 1))?;
        router.ip("link set lan up")?;
        router.sh(&format!("nft -f - <<'RULES'\n{RULES}RULES"))?;
        Ok(Nat { router, network: Ipv4Addr::new(192, 0, 2, site), next: 2 })
    }

    /// A NAT as [`Self::nat`], but hard: each destination sees another, random port, and only it may answer there.
    ///
    /// # Errors
    /// When a link, address or rule is refused.
    pub fn hard_nat(&self, lab: &Lab, name: &str, host: u8, site: u8) -> anyhow::Result<Nat> {
        let nat = self.nat(lab, name, host, site)?;
        nat.router.sh("nft flush chain inet nat postrouting")?;
        nat.router.sh("nft add rule inet nat postrouting oifname wan masquerade random,fully-random")?;
        Ok(nat)
    }

    /// The switch itself, to capture or to cut.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }
}

/// A port-preserving NAT that answers nobody it was not asked to reach. Without the drop in `input` the router itself answers
/// the peer's first probe, keeps a conntrack entry for it, and the own outgoing probe gets another port: no hole is punched.
const RULES: &str = "\
table inet nat {
    chain input {
        type filter hook input priority filter; policy accept;
        iifname wan meta l4proto udp drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname wan ct state { new, invalid } drop
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname wan masquerade
    }
}
";

/// A site's router.
pub struct Nat {
    router: Namespace,
    network: Ipv4Addr,
    next: u8,
}

impl Nat {
    /// A machine behind this NAT, on a device `lan`.
    ///
    /// # Errors
    /// When a link or address is refused.
    pub fn host(&mut self, lab: &Lab, name: &str) -> anyhow::Result<Namespace> {
        let machine = lab.namespace(name)?;
        self.plug(&machine, "lan", 0)?;
        Ok(machine)
    }

    /// Connects `machine` to this NAT's site by `device`, with a default route of that metric; returns the router's end of the
    /// cable.
    ///
    /// # Errors
    /// When a link or address is refused.
    pub fn plug(&mut self, machine: &Namespace, device: &str, metric: u32) -> anyhow::Result<String> {
        let [a, b, c, d] = self.network.octets();
        let port = format!("port{}", self.next);
        self.router
            .ip(&format!("link add {port} type veth peer name {device} netns {}", machine.full_name()))?;
        self.router.ip(&format!("link set {port} master lan up"))?;
        machine.ip(&format!("addr add {a}.{b}.{c}.{}/25 dev {device}", d + self.next))?;
        machine.ip(&format!("link set {device} up"))?;
        machine.ip(&format!("route add default via {a}.{b}.{c}.{} metric {metric}", d + 1))?;
        self.next += 1;
        Ok(port)
    }

    /// The router, to break it.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// Drops every UDP packet through this NAT, or lets it through again.
    ///
    /// # Errors
    /// When the rule is refused.
    pub fn block_udp(&self, blocked: bool) -> anyhow::Result<()> {
        let rules = "table inet block { chain forward { type filter hook forward priority -10; meta l4proto udp drop; }; }";
        let line = if blocked { format!("nft '{rules}'") } else { "nft delete table inet block".to_owned() };
        self.router.sh(&line).map(drop)
    }
}

/// A machine `198.51.100.2/24` on a LAN of its own behind `gateway` (198.51.100.1, device `lan`), its default route through it.
///
/// # Errors
/// When a link or address is refused.
pub fn lan(lab: &Lab, gateway: &Namespace, name: &str) -> anyhow::Result<Namespace> {
    let machine = lab.namespace(name)?;
    gateway.ip(&format!("link add lan type veth peer name lan netns {}", machine.full_name()))?;
    gateway.ip("addr add 198.51.100.1/24 dev lan")?;
    gateway.ip("link set lan up")?;
    machine.ip("addr add 198.51.100.2/24 dev lan")?;
    machine.ip("link set lan up")?;
    machine.ip("route add default via 198.51.100.1")?;
    Ok(machine)
}
