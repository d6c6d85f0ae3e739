//! Health: what is wrong, as `# Health check:` lines show it. Codes are those of tailscale `tsconst/health.go` where the
//! trouble is the same.
//!
//! A pure function of [`Facts`]; the shell adds what only it knows (login, control connection, TLS). Deliberately not
//! here: when things broke and how long to wait before saying so.

use std::collections::BTreeSet;

use types::RegionId;

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Stable name for programs.
    pub code: &'static str,
    /// One sentence for people: what is wrong and what to do.
    pub text: String,
}

/// What warnings follow from.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) want_running: bool,
    pub(crate) has_map: bool,
    pub(crate) key_expired: bool,
    /// Any address to be reached at.
    pub(crate) online: bool,
    pub(crate) home: Option<RegionId>,
    /// A netcheck is under way: there may be a home in a moment.
    pub(crate) searching: bool,
    pub(crate) home_name: String,
    pub(crate) home_connected: bool,
    /// Names of peers that DISCO reaches and WireGuard does not.
    pub(crate) firewalled: BTreeSet<String>,
    pub(crate) wireguard_port: u16,
    /// Control's own words.
    pub(crate) from_control: Vec<String>,
    /// Parts of the packet filter that let nothing in because they are not understood.
    pub(crate) filter_lost: usize,
}

/// All that is wrong, in a fixed order.
pub(crate) fn warnings(facts: &Facts) -> Vec<Warning> {
    let mut out = Vec::new();
    let mut add = |wrong: bool, code: &'static str, text: String| {
        if wrong {
            out.push(Warning { code, text });
        }
    };
    let f = facts;
    if !f.want_running {
        add(true, "wantrunning-false", "Underpass is stopped; `underpass up` starts it.".into());
        return out;
    }
    add(
        f.key_expired,
        "login-state",
        "This node's key has expired; log in again with `underpass up`.".into(),
    );
    let offline = "No network is up: there is no address to reach peers from.";
    add(!f.online, "network-status", offline.into());
    let homeless = "No relay server could be chosen, so peers may not find this node. Check UDP and TCP towards the relays.";
    let is_homeless = f.home.is_none() && !f.searching;
    add(f.has_map && f.online && is_homeless, "no-derp-home", homeless.into());
    let unconnected = format!(
        "The relay server of region '{}' cannot be reached, so peers may not find this node. Check TCP towards it.",
        f.home_name
    );
    add(f.online && f.home.is_some() && !f.home_connected, "no-derp-connection", unconnected);
    let names: Vec<&str> = f.firewalled.iter().map(String::as_str).collect();
    let firewall = format!(
        "WireGuard packets do not get through on UDP port {} although discovery does (with {}); relayed instead. \
         Check that the firewalls of both ends accept the port.",
        f.wireguard_port,
        names.join(", ")
    );
    add(!names.is_empty(), "wireguard-blocked", firewall);
    let filter =
        format!("{} parts of the packet filter are not understood and let nothing in.", f.filter_lost);
    add(f.filter_lost > 0, "packet-filter", filter);
    for text in &f.from_control {
        add(true, "control-health", text.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(facts: &Facts) -> Vec<&'static str> {
        warnings(facts).iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn each_trouble_has_its_warning_and_a_stopped_node_only_one() {
        let well = || Facts {
            want_running: true,
            has_map: true,
            online: true,
            home: Some(RegionId(1)),
            home_connected: true,
            ..Facts::default()
        };
        assert!(codes(&well()).is_empty());
        assert_eq!(codes(&Facts { want_running: false, key_expired: true, ..well() }), ["wantrunning-false"]);
        assert_eq!(codes(&Facts { online: false, home_connected: false, ..well() }), ["network-status"]);
        assert_eq!(codes(&Facts { home: None, ..well() }), ["no-derp-home"]);
        assert!(codes(&Facts { home: None, searching: true, ..well() }).is_empty(), "not yet");
        assert_eq!(codes(&Facts { home_connected: false, ..well() }), ["no-derp-connection"]);
        let blocked = Facts { firewalled: ["a".into(), "b".into()].into(), wireguard_port: 41641, ..well() };
        assert_eq!(codes(&blocked), ["wireguard-blocked"]);
        assert!(warnings(&blocked)[0].text.contains("UDP port 41641"));
        assert_eq!(codes(&Facts { from_control: vec!["x".into()], ..well() }), ["control-health"]);
    }
}
