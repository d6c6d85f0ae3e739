//! How a node is reached: the router's port mapping with a real daemon, the machine's own firewall by its real rules, and what
//! `netcheck` says beside the stock command. Every wait is for a condition.

use std::path::PathBuf;
use std::time::Duration;

use lab::{Internet, Lab, Namespace, Nat, Node, Process, Server, node, stock, until};

const SOON: Duration = Duration::from_secs(60);

/// A server, a NAT and a machine behind it.
struct Home {
    lab: Lab,
    internet: Internet,
    server_host: Namespace,
    nat: Nat,
    host: Namespace,
}

impl Home {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let internet = Internet::new(&lab)?;
        let server_host = internet.host(&lab, "server", 10)?;
        let mut nat = internet.nat(&lab, "nat", 21, 0)?;
        let host = nat.host(&lab, "a")?;
        Ok(Self { lab, internet, server_host, nat, host })
    }

    fn server(&self) -> anyhow::Result<Server<'_>> {
        Server::start(&self.server_host, self.lab.folder(), &[])
    }

    fn node<'lab>(
        &'lab self,
        host: &'lab Namespace,
        server: &Server<'_>,
        flags: &[&str],
    ) -> anyhow::Result<Node<'lab>> {
        let options = node::Options {
            certificate: Some(server.certificate()),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..node::Options::default()
        };
        Node::start(host, self.lab.folder(), self.lab.tag(), options)
    }

    /// A router as sold: miniupnpd on the NAT, with some of its protocols.
    fn router(&self, upnp: bool, pcp: bool) -> anyhow::Result<Process> {
        let yes = |on: bool| if on { "yes" } else { "no" };
        let config = self.lab.folder().join("miniupnpd.conf");
        // The lab's Internet is made of documentation addresses, which miniupnpd does not take for public; so it is told one that is.
        std::fs::write(
            &config,
            format!(
                "ext_ifname=wan\next_ip=11.0.0.21\nlistening_ip=lan\nport=0\nhttp_port=0\nenable_upnp={}\n\
                 enable_natpmp={}\nsecure_mode=yes\nsystem_uptime=yes\nmin_lifetime=120\nmax_lifetime=86400\n\
                 uuid=00000000-0000-0000-0000-000000000000\nallow 1024-65535 192.0.2.0/24 1024-65535\n\
                 deny 0-65535 0.0.0.0/0 0-65535\n",
                yes(upnp),
                yes(pcp)
            ),
        )?;
        let pid = self.lab.folder().join("miniupnpd.pid");
        let router = self.nat.router();
        router.sh("ip route replace 239.0.0.0/8 dev lan")?;
        router.sh(&format!("nft -f - <<'RULES'\n{MINIUPNPD}RULES"))?;
        let mut command = router.command("miniupnpd")?;
        command.arg("-d").arg("-f").arg(&config).arg("-P").arg(&pid);
        router.start("miniupnpd", &mut command)
    }

    /// The router's mappings, as its kernel has them.
    fn mappings(&self) -> String {
        self.nat.router().sh("nft list chain inet filter prerouting_miniupnpd").unwrap_or_default()
    }
}

/// What Debian's `nft_init.sh` of miniupnpd makes.
const MINIUPNPD: &str = "\
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";

fn skipped(test: &str) -> bool {
    if lab::skipped(test) {
        return true;
    }
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir: PathBuf| dir.join("miniupnpd").is_file()))
        || std::path::Path::new("/usr/sbin/miniupnpd").is_file();
    if !found {
        println!("SKIPPED: {test}: no miniupnpd; `cargo xtask setup` installs it");
    }
    !found
}

#[test]
fn a_port_mapping_is_got_shown_and_taken_back_by_each_protocol() -> anyhow::Result<()> {
    if skipped("a_port_mapping_is_got_shown_and_taken_back_by_each_protocol") {
        return Ok(());
    }
    for (upnp, pcp) in [(false, true), (true, false)] {
        let home = Home::build()?;
        let server = home.server()?;
        let router = home.router(upnp, pcp)?;
        let node = home.node(&home.host, &server, &[])?;
        node.up(&server.auth_key("alice", &[])?, &[])?;
        until("the router maps the port", SOON, || home.mappings().contains("41641").then_some(()))
            .map_err(|error| error.context(format!("{}\n{}", node.process.log(), router.log())))?;
        let report = until("netcheck knows", SOON, || {
            let text = node.run(&["netcheck", "--json"]).ok()?;
            let report: serde_json::Value = serde_json::from_str(&text).ok()?;
            report["PortMapped"].is_string().then_some(report)
        })?;
        assert_eq!((&report["UPnP"], &report["PCP"]), (&upnp.into(), &pcp.into()), "{report}");
        assert_eq!(report["PortMapped"], "11.0.0.21:41641", "{report}");
        let text = node.run(&["netcheck"])?;
        let line = if pcp { "PortMapping: NAT-PMP, PCP (11.0.0.21:41641)" } else { "PortMapping: UPnP (" };
        assert!(text.contains(line), "{text}");
        let addresses = node.status()?["Self"]["Addrs"].to_string();
        assert!(addresses.contains("11.0.0.21:41641"), "{addresses}");
        node.run(&["down"])?;
        until("the mapping is taken back", SOON, || (!home.mappings().contains("41641")).then_some(()))
            .map_err(|error| error.context(home.mappings()))?;
    }
    Ok(())
}

#[test]
fn port_mapping_can_be_switched_off_and_ends_with_the_daemon() -> anyhow::Result<()> {
    if skipped("port_mapping_can_be_switched_off_and_ends_with_the_daemon") {
        return Ok(());
    }
    let home = Home::build()?;
    let server = home.server()?;
    let _router = home.router(true, true)?;
    let mut node = home.node(&home.host, &server, &["--port-mapping=false"])?;
    let key = server.auth_key("alice", &["--reusable"])?;
    node.up(&key, &[])?;
    let text = node.run(&["netcheck"])?;
    assert!(text.contains("PortMapping: not checked"), "{text}");
    assert!(!home.mappings().contains("41641"));
    node.process.stop(nix::sys::signal::Signal::SIGTERM)?;
    drop(node);
    let mut node = home.node(&home.host, &server, &[])?;
    until("the router maps the port", SOON, || home.mappings().contains("41641").then_some(()))?;
    node.process.stop(nix::sys::signal::Signal::SIGTERM)?;
    assert!(!home.mappings().contains("41641"), "{}", home.mappings());
    Ok(())
}

/// Rulesets as three programs leave them; none lets UDP 41641 in.
const FIREWALLS: [(&str, &str, &str); 3] = [
    (
        "nftables",
        "table inet filter {
            chain input {
                type filter hook input priority filter; policy drop;
                iifname lo accept
                ct state vmap { established : accept, related : accept, invalid : drop }
                meta l4proto { icmp, ipv6-icmp } accept
                tcp dport { 22, 80, 443 } accept
            }
        }",
        "nft insert rule inet filter input udp dport 41641 accept",
    ),
    (
        "firewalld",
        "table inet firewalld {
            chain filter_INPUT {
                type filter hook input priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname lo accept
                ct state invalid drop
                jump filter_INPUT_ZONES
                reject with icmpx admin-prohibited
            }
            chain filter_INPUT_ZONES { goto filter_IN_public; }
            chain filter_IN_public {
                jump filter_IN_public_allow
                meta l4proto { icmp, ipv6-icmp } accept
            }
            chain filter_IN_public_allow {
                tcp dport 22 accept
                ip6 daddr fe80::/64 udp dport 546 accept
            }
        }",
        "firewall-cmd --permanent --add-port=41641/udp && firewall-cmd --reload",
    ),
    (
        "ufw",
        "table ip filter {
            chain INPUT {
                type filter hook input priority filter; policy drop;
                counter jump ufw-before-input
                counter jump ufw-reject-input
            }
            chain ufw-before-input {
                iifname lo counter accept
                ct state related,established counter accept
                ct state invalid counter drop
                icmp type echo-request counter accept
                udp sport 67 udp dport 68 counter accept
                counter jump ufw-not-local
                counter jump ufw-user-input
            }
            chain ufw-not-local {
                fib daddr type local counter return
                fib daddr type multicast counter return
                limit rate 3/minute burst 10 packets counter log
                counter drop
            }
            chain ufw-user-input { tcp dport 22 counter accept; }
            chain ufw-reject-input { }
        }",
        "ufw allow 41641/udp",
    ),
];

#[test]
fn the_firewall_rule_that_drops_wireguard_is_named_with_what_to_type() -> anyhow::Result<()> {
    if lab::skipped("the_firewall_rule_that_drops_wireguard_is_named_with_what_to_type") {
        return Ok(());
    }
    let home = Home::build()?;
    let server = home.server()?;
    let key = server.auth_key("alice", &["--reusable"])?;
    for (index, (name, rules, advice)) in FIREWALLS.iter().enumerate() {
        let public = home.internet.host(&home.lab, &format!("fw{index}"), 50 + index as u8)?;
        public.sh(&format!("nft -f - <<'RULES'\n{rules}\nRULES"))?;
        let node = home.node(&public, &server, &[])?;
        node.up(&key, &[]).map_err(|error| error.context(server.process.log()))?;
        let health = || node.status().ok().map(|status| status["Health"].to_string());
        let text = until(&format!("{name} is named"), SOON, || health().filter(|text| text.contains(advice)))
            .map_err(|error| error.context(format!("{:?}\n{}", health(), node.process.log())))?;
        assert!(text.contains("UDP port 41641 on wan"), "{text}");
        public.sh("nft flush ruleset")?;
        until(&format!("{name} is gone"), SOON, || health().filter(|text| !text.contains(advice)))?;
    }
    Ok(())
}

#[test]
fn netcheck_says_what_the_stock_command_says() -> anyhow::Result<()> {
    if stock::skipped("netcheck_says_what_the_stock_command_says", &["tailscale"]) {
        return Ok(());
    }
    let home = Home::build()?;
    let server = home.server()?;
    let node = home.node(&home.host, &server, &[])?;
    node.up(&server.auth_key("alice", &[])?, &[])?;
    let stock = stock::program("tailscale").unwrap_or_default();
    let theirs: serde_json::Value = until("the stock command measures", SOON, || {
        let line = format!(
            "{} --socket {} netcheck --format json 2>/dev/null",
            stock.display(),
            node.socket().display()
        );
        serde_json::from_str(&home.host.sh(&line).ok()?).ok()
    })?;
    let ours: serde_json::Value = serde_json::from_str(&node.run(&["netcheck", "--json"])?)?;
    println!("stock: {theirs}\nours:  {ours}");
    for field in ["UDP", "IPv4", "IPv6", "OSHasIPv6", "MappingVariesByDestIP", "PreferredDERP", "GlobalV6"] {
        assert_eq!(ours[field], theirs[field], "{field}: {ours} {theirs}");
    }
    for (field, _) in theirs.as_object().into_iter().flatten() {
        assert!(
            !ours[field].is_null() || theirs[field].is_null() || theirs[field] == false,
            "{field}: {ours}"
        );
    }
    let ip = |report: &serde_json::Value| {
        report["GlobalV4"].as_str().map(|text| text.split(':').next().map(str::to_owned))
    };
    assert_eq!(ip(&ours), ip(&theirs));
    let text = node.run(&["netcheck"])?;
    for line in ["* UDP: true", "* IPv4: yes, 203.0.113.21:", "* Nearest DERP: Underpass", "- underpass: "] {
        assert!(text.contains(line), "{line} in {text}");
    }
    Ok(())
}
