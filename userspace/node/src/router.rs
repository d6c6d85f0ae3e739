//! The slow path's firewall: one nftables table of our own, and IP forwarding while subnets are served.
//!
//! The table guards the overlay's addresses against other devices (CVE-2019-14899), only those that are really in use, so an
//! ISP's own 100.64.0.0/10 goes on working; it masquerades what peers send to served subnets, under Tailscale's mark; and it
//! clamps the MSS of connections into the tunnel. It accepts nothing on behalf of others: an accept of one table does not
//! overrule a drop of another (nft(8)). Removed by `down`. Deliberately not here: routes and rules (`dataplane::reconcile`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use netlink::{Table, TableFamily, sysctl};
use node_core::Desired;

/// Marks packets forwarded from the tunnel, the candidates of masquerading (Tailscale's `0x40000/0xff0000`).
const FORWARDED_MARK: u32 = 0x40000;
/// Marks a new flow that the programs have no place for.
const REFUSED_MARK: u32 = dataplane::REFUSED_MARK;
/// The bits of a mark that are Tailscale's and ours.
pub(crate) const MARK_MASK: u32 = 0xff_0000;
/// Switches of forwarding, by family.
const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// Name of the table of a device.
pub(crate) fn table_name(device: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("underpass_{}", device.chars().map(plain).collect::<String>())
}

/// The table, and what it consists of now.
pub(crate) struct Router {
    table: Table,
    device: String,
    /// The table's text as last installed by this process, and how nft lists it since.
    installed: Option<(String, Option<String>)>,
}

impl Router {
    /// The firewall of overlay device `device`; nothing is changed yet.
    pub(crate) fn new(device: &str) -> Self {
        Self {
            table: Table::new(TableFamily::Inet, &table_name(device)),
            device: device.into(),
            installed: None,
        }
    }

    /// Makes the table what `desired` needs, where the programs translate on the devices `translating`, and switches forwarding on for served subnets. Returns the switches that had
    /// to be changed, for [`Self::remove`].
    ///
    /// # Errors
    /// When `nft` is missing or refuses, or forwarding cannot be switched on.
    pub(crate) async fn apply(
        &mut self,
        desired: &Desired,
        translating: &BTreeSet<String>,
    ) -> netlink::Result<Vec<String>> {
        let text = ruleset(&self.device, desired, translating);
        if self.installed.as_ref().is_none_or(|(installed, _)| *installed != text) {
            self.install(text).await?;
        }
        switch_forwarding_on(desired)
    }

    async fn install(&mut self, text: String) -> netlink::Result<()> {
        self.table.replace(&text).await?;
        self.installed = Some((text, self.table.listing().await?));
        Ok(())
    }

    /// Puts the table back when somebody flushed it, or a part of it.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub(crate) async fn repair(&mut self) -> netlink::Result<()> {
        match self.installed.clone() {
            Some((text, listing)) if self.table.listing().await? != listing => self.install(text).await,
            _ => Ok(()),
        }
    }

    /// Takes the table away and switches off what [`Self::apply`] switched on.
    ///
    /// # Errors
    /// When `nft` is missing or refuses, or a switch cannot be written.
    pub(crate) async fn remove(&mut self, switched_on: &[String]) -> netlink::Result<()> {
        self.installed = None;
        for switch in switched_on {
            sysctl::write(switch, "0")?;
        }
        self.table.remove().await
    }
}

fn switch_forwarding_on(desired: &Desired) -> netlink::Result<Vec<String>> {
    let families = [
        desired.served_routes.iter().any(|net| net.addr().is_ipv4()),
        desired.served_routes.iter().any(|net| net.addr().is_ipv6()),
    ];
    let mut switched = Vec::new();
    for (switch, needed) in FORWARDING.into_iter().zip(families) {
        if needed && sysctl::read(switch)? == "0" {
            sysctl::write(switch, "1")?;
            switched.push(switch.to_owned());
        }
    }
    Ok(switched)
}

/// One family's words in nft's language.
struct Family {
    suffix: &'static str,
    kind: &'static str,
    word: &'static str,
    is_mine: fn(&IpNet) -> bool,
}

const FAMILIES: [Family; 2] = [
    Family { suffix: "4", kind: "ipv4_addr", word: "ip", is_mine: |net| net.addr().is_ipv4() },
    Family { suffix: "6", kind: "ipv6_addr", word: "ip6", is_mine: |net| net.addr().is_ipv6() },
];

/// The body of the table.
fn ruleset(device: &str, desired: &Desired, translating: &BTreeSet<String>) -> String {
    let overlay = |net: &&IpNet| types::overlay::contains(net.addr());
    let peers: BTreeSet<IpNet> =
        desired.peers.values().flat_map(|peer| &peer.allowed_ips).filter(overlay).copied().collect();
    let snat = if desired.snat_subnet_routes { desired.served_routes.clone() } else { BTreeSet::new() };
    let mut text = String::new();
    for family in &FAMILIES {
        set(&mut text, "own", family, &desired.addresses);
        set(&mut text, "peers", family, &peers);
        set(&mut text, "masqueraded", family, &snat);
    }
    // What the programs translate where it leaves. Conntrack is needed all the same: it reassembles fragments.
    let names: Vec<String> = translating.iter().map(|name| format!("\"{name}\"")).collect();
    let translated = match names.is_empty() {
        true => String::new(),
        false => format!(
            "oifname {{ {} }} meta l4proto {{ tcp, udp, icmp, ipv6-icmp }} accept\n    ",
            names.join(", ")
        ),
    };
    let mss = desired.mtu.saturating_sub(40);
    // Packets out of a tunnel (type "none", 65534) were authenticated by it, whichever tunnel it is.
    let mut guard = String::new();
    let mut leave = String::new();
    let mut forward = String::new();
    for Family { suffix, word, .. } in &FAMILIES {
        for rule in [format!("{word} saddr @peers{suffix}"), format!("{word} daddr @own{suffix}")] {
            _ = writeln!(guard, "    meta iiftype != {{ loopback, 65534 }} {rule} counter drop");
        }
        _ = writeln!(
            leave,
            "    meta oiftype != {{ loopback, 65534 }} {word} daddr @peers{suffix} counter drop"
        );
        _ = writeln!(
            forward,
            "    iifname \"{device}\" {word} daddr @masqueraded{suffix} meta mark set meta mark & {:#x} | {FORWARDED_MARK:#x}",
            !MARK_MASK
        );
    }
    _ = write!(
        text,
        "chain guard {{\n    type filter hook prerouting priority raw; policy accept;\n{guard}}}\n\
         chain leave {{\n    type filter hook postrouting priority filter; policy accept;\n{leave}}}\n\
         chain forward {{\n    type filter hook forward priority filter; policy accept;\n    \
         meta mark & {MARK_MASK:#x} == {REFUSED_MARK:#x} reject with icmpx admin-prohibited\n{forward}    \
         iifname \"{device}\" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}\n    \
         oifname \"{device}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n}}\n\
         chain served {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
         {translated}meta mark & {MARK_MASK:#x} == {FORWARDED_MARK:#x} masquerade\n}}\n"
    );
    text
}

fn set(text: &mut String, name: &str, family: &Family, nets: &BTreeSet<IpNet>) {
    let mine: Vec<IpNet> = nets.iter().filter(|net| (family.is_mine)(net)).copied().collect();
    let elements: Vec<String> = IpNet::aggregate(&mine).iter().map(ToString::to_string).collect();
    _ = write!(text, "set {name}{} {{\n    type {}; flags interval;\n", family.suffix, family.kind);
    if !elements.is_empty() {
        _ = writeln!(text, "    elements = {{ {} }}", elements.join(", "));
    }
    text.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use node_core::DesiredPeer;
    use types::NodePublic;

    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn gateway() -> Desired {
        let allowed_ips = nets(&["100.64.0.2/32", "fd7a:115c:a1e0::2/128", "10.7.0.0/16"]);
        let peer = DesiredPeer { allowed_ips, endpoint: "192.0.2.1:1".parse().unwrap() };
        Desired {
            addresses: nets(&["100.64.0.1/32"]),
            peers: [(NodePublic::from_bytes([2; 32]), peer)].into(),
            served_routes: nets(&["192.168.5.0/24"]),
            snat_subnet_routes: true,
            ..Desired::default()
        }
    }

    fn elements(text: &str, set: &str) -> Option<String> {
        let body = text.split(&format!("set {set} {{")).nth(1)?.split('}').next()?.to_owned();
        Some(body.split("elements = {").nth(1)?.trim().to_owned())
    }

    #[test]
    fn sets_hold_the_addresses_in_use_and_nothing_else_of_the_overlay_range() {
        let text = ruleset("underpass0", &gateway(), &BTreeSet::new());
        assert_eq!(elements(&text, "own4").as_deref(), Some("100.64.0.1/32"));
        assert_eq!(elements(&text, "peers4").as_deref(), Some("100.64.0.2/32"));
        assert_eq!(elements(&text, "peers6").as_deref(), Some("fd7a:115c:a1e0::2/128"));
        assert_eq!(elements(&text, "own6"), None);
    }

    #[test]
    fn served_subnets_are_masqueraded_only_when_asked() {
        assert_eq!(
            elements(&ruleset("u0", &gateway(), &BTreeSet::new()), "masqueraded4").as_deref(),
            Some("192.168.5.0/24")
        );
        let plain = Desired { snat_subnet_routes: false, ..gateway() };
        assert_eq!(elements(&ruleset("u0", &plain, &BTreeSet::new()), "masqueraded4"), None);
    }

    /// The kernel's own parser judges the text, in a namespace of its own; says so where it cannot.
    #[test]
    fn the_kernel_accepts_the_table() {
        use nix::sched::{CloneFlags, unshare};
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            println!("SKIPPED: a network namespace needs root");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut router = Router::new("underpass-0");
            let served = Desired { served_routes: BTreeSet::new(), mtu: 1280, ..gateway() };
            match router.apply(&served, &["lan0".to_owned()].into()).await {
                Err(netlink::Error::NoNft) => println!("SKIPPED: no nft command"),
                applied => {
                    applied.unwrap();
                    assert!(router.table.listing().await.unwrap().is_some());
                    router.table.remove().await.unwrap();
                    router.repair().await.unwrap();
                    assert!(router.table.listing().await.unwrap().is_some());
                    router.remove(&[]).await.unwrap();
                    assert!(router.table.listing().await.unwrap().is_none());
                }
            }
        });
    }
}
