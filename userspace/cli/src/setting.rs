//! The flags that are settings, the same for `up` and `set`, and their relation to the node's prefs.
//!
//! `up` describes all settings, `set` changes what is named. So `up` must notice when a setting that was made before is
//! not mentioned now; [`unmentioned`] finds those, as the stock command does, and leaves it to the user.

use std::net::SocketAddr;

use clap::Args;
use ipnet::IpNet;
use wire::local::{MaskedPrefs, Pref, Prefs};

/// What may be given on the command line. Absent is "not mentioned", empty is "none".
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Hostname to announce instead of the machine's.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Prefixes behind this node to offer to the others, separated by commas; empty for none.
    #[arg(long, value_name = "PREFIX,...", value_parser = parse_routes)]
    advertise_routes: Option<Routes>,
    /// Tags to ask for, separated by commas; `tag:` in front may be left out.
    #[arg(long, value_name = "TAG,...", value_parser = parse_tags)]
    advertise_tags: Option<Tags>,
    /// Use the routes that other nodes offer [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    accept_routes: Option<bool>,
    /// Refuse every inbound connection, whatever the policy allows [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    shields_up: Option<bool>,
    /// UDP port on which this node relays for peers that the policy lets ask it, 0 for any free one; empty for no relay.
    #[arg(long, value_name = "PORT", value_parser = parse_relay_port)]
    relay_server_port: Option<RelayPort>,
    /// Addresses at which the relay can be reached beside those it finds itself, separated by commas; empty for none.
    #[arg(long, value_name = "IP:PORT,...", value_parser = parse_relay_endpoints)]
    relay_server_static_endpoints: Option<RelayEndpoints>,
    /// Hide the peers' addresses behind this node's on the way to the routes it offers [default: true]. Without it the LAN
    /// needs a route back to 100.64.0.0/10.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    snat_subnet_routes: Option<bool>,
    /// Local user who may change settings without being root; empty for nobody.
    #[arg(long, value_name = "USER")]
    operator: Option<String>,
}

// Newtypes, because clap gives a bare Vec the meaning "the flag may be repeated".
#[derive(Clone, Debug)]
struct Routes(Vec<IpNet>);
#[derive(Clone, Debug)]
struct Tags(Vec<String>);
#[derive(Clone, Debug)]
struct RelayPort(Option<u16>);
#[derive(Clone, Debug)]
struct RelayEndpoints(Vec<SocketAddr>);

/// One setting: its flag, its pref, and its value as one would write it.
struct Setting {
    flag: &'static str,
    pref: Pref,
    show: fn(&Prefs) -> String,
}

const SETTINGS: [Setting; 9] = [
    Setting { flag: "accept-routes", pref: Pref::RouteAll, show: |prefs| prefs.route_all.to_string() },
    Setting { flag: "advertise-routes", pref: Pref::AdvertiseRoutes, show: show_routes },
    Setting {
        flag: "advertise-tags",
        pref: Pref::AdvertiseTags,
        show: |prefs| prefs.advertise_tags.join(","),
    },
    Setting { flag: "hostname", pref: Pref::Hostname, show: |prefs| prefs.hostname.clone() },
    Setting { flag: "operator", pref: Pref::OperatorUser, show: |prefs| prefs.operator_user.clone() },
    Setting { flag: "relay-server-port", pref: Pref::RelayServerPort, show: show_relay_port },
    Setting {
        flag: "relay-server-static-endpoints",
        pref: Pref::RelayServerStaticEndpoints,
        show: show_relay_endpoints,
    },
    Setting { flag: "shields-up", pref: Pref::ShieldsUp, show: |prefs| prefs.shields_up.to_string() },
    Setting { flag: "snat-subnet-routes", pref: Pref::NoSnat, show: |prefs| (!prefs.no_snat).to_string() },
];

fn show_routes(prefs: &Prefs) -> String {
    let routes = prefs.advertise_routes.iter().map(ToString::to_string);
    routes.collect::<Vec<_>>().join(",")
}

fn show_relay_port(prefs: &Prefs) -> String {
    prefs.relay_server_port.map(|port| port.to_string()).unwrap_or_default()
}

fn show_relay_endpoints(prefs: &Prefs) -> String {
    let endpoints = prefs.relay_server_static_endpoints.iter().map(ToString::to_string);
    endpoints.collect::<Vec<_>>().join(",")
}

impl Settings {
    /// The edit that makes what was mentioned so.
    pub(crate) fn edit(&self) -> MaskedPrefs {
        let mut edit = MaskedPrefs::default();
        if let Some(hostname) = &self.hostname {
            edit.prefs.hostname.clone_from(hostname);
            edit.set.insert(Pref::Hostname);
        }
        if let Some(Routes(routes)) = &self.advertise_routes {
            edit.prefs.advertise_routes.clone_from(routes);
            edit.set.insert(Pref::AdvertiseRoutes);
        }
        if let Some(Tags(tags)) = &self.advertise_tags {
            edit.prefs.advertise_tags.clone_from(tags);
            edit.set.insert(Pref::AdvertiseTags);
        }
        if let Some(accept) = self.accept_routes {
            edit.prefs.route_all = accept;
            edit.set.insert(Pref::RouteAll);
        }
        if let Some(shields_up) = self.shields_up {
            edit.prefs.shields_up = shields_up;
            edit.set.insert(Pref::ShieldsUp);
        }
        if let Some(RelayPort(port)) = &self.relay_server_port {
            edit.prefs.relay_server_port = *port;
            edit.set.insert(Pref::RelayServerPort);
        }
        if let Some(RelayEndpoints(endpoints)) = &self.relay_server_static_endpoints {
            edit.prefs.relay_server_static_endpoints.clone_from(endpoints);
            edit.set.insert(Pref::RelayServerStaticEndpoints);
        }
        if let Some(snat) = self.snat_subnet_routes {
            edit.prefs.no_snat = !snat;
            edit.set.insert(Pref::NoSnat);
        }
        if let Some(operator) = &self.operator {
            edit.prefs.operator_user.clone_from(operator);
            edit.set.insert(Pref::OperatorUser);
        }
        edit
    }
}

/// Every setting back to its default, except those that `edit` mentions.
pub(crate) fn reset(prefs: &mut Prefs, edit: &MaskedPrefs) {
    let rest = SETTINGS.iter().map(|setting| setting.pref).filter(|pref| !edit.set.contains(pref));
    prefs.apply(&MaskedPrefs { prefs: Prefs::new(), set: rest.collect(), ..MaskedPrefs::default() });
}

/// The settings that differ from their default and that `edit` does not mention, as flags that would mention them.
pub(crate) fn unmentioned(prefs: &Prefs, edit: &MaskedPrefs) -> Vec<String> {
    let fresh = Prefs::new();
    let lost = SETTINGS.iter().filter(|one| !edit.set.contains(&one.pref) && !prefs.agrees(&fresh, one.pref));
    lost.map(|setting| flag(setting, prefs)).collect()
}

/// The settings that `edit` mentions, as they were given.
pub(crate) fn mentioned(edit: &MaskedPrefs) -> Vec<String> {
    let given = SETTINGS.iter().filter(|setting| edit.set.contains(&setting.pref));
    given.map(|setting| flag(setting, &edit.prefs)).collect()
}

fn flag(setting: &Setting, prefs: &Prefs) -> String {
    match (setting.show)(prefs).as_str() {
        "true" => format!("--{}", setting.flag),
        value if value.contains(char::is_whitespace) => format!("--{}='{value}'", setting.flag),
        value => format!("--{}={value}", setting.flag),
    }
}

fn parse_routes(text: &str) -> Result<Routes, String> {
    let routes = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    routes.map(parse_route).collect::<Result<_, _>>().map(Routes)
}

fn parse_route(text: &str) -> Result<IpNet, String> {
    let route: IpNet = text
        .parse()
        .map_err(|_| format!("{text:?} is not a prefix such as 192.0.2.0/24 or 2001:db8::/64"))?;
    if route.trunc() == route {
        return Ok(route);
    }
    Err(format!("{text} has address bits beyond its length; did you mean {}?", route.trunc()))
}

fn parse_relay_port(text: &str) -> Result<RelayPort, String> {
    match text {
        "" => Ok(RelayPort(None)),
        text => text
            .parse()
            .map(|port| RelayPort(Some(port)))
            .map_err(|_| format!("{text:?} is no port from 0 to 65535")),
    }
}

fn parse_relay_endpoints(text: &str) -> Result<RelayEndpoints, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| {
        let wrong =
            |_| format!("{part:?} is not an address and port such as 203.0.113.1:7777 or [2001:db8::1]:7777");
        part.parse().map_err(wrong)
    };
    parts.map(parse).collect::<Result<_, _>>().map(RelayEndpoints)
}

fn parse_tags(text: &str) -> Result<Tags, String> {
    let tags = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    tags.map(parse_tag).collect::<Result<_, _>>().map(Tags)
}

/// `tailcfg.CheckTag`: a letter, then letters, digits and dashes.
pub(crate) fn parse_tag(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("tag:").unwrap_or(text);
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if valid {
        Ok(format!("tag:{name}"))
    } else {
        Err(format!("{text:?} is not a tag: a letter, then letters, digits and dashes, such as tag:gw"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        <Line as clap::Parser>::try_parse_from([&["x"], flags].concat()).unwrap().settings
    }

    #[test]
    fn only_what_is_mentioned_is_edited() {
        let edit = settings(&["--advertise-routes=198.51.100.0/24,2001:db8::/64", "--accept-routes"]).edit();
        assert_eq!(edit.set.iter().copied().collect::<Vec<_>>(), [Pref::RouteAll, Pref::AdvertiseRoutes]);
        assert_eq!(edit.prefs.advertise_routes.len(), 2);
        assert!(settings(&[]).edit().is_empty());
        assert!(settings(&["--advertise-routes="]).edit().prefs.advertise_routes.is_empty());
        assert!(!settings(&["--shields-up=false"]).edit().prefs.shields_up);
        let edit = settings(&[
            "--relay-server-port=0",
            "--relay-server-static-endpoints=203.0.113.1:7777, [2001:db8::1]:1",
        ])
        .edit();
        assert_eq!(edit.prefs.relay_server_port, Some(0));
        assert_eq!(mentioned(&edit)[1], "--relay-server-static-endpoints=203.0.113.1:7777,[2001:db8::1]:1");
        let none = settings(&["--relay-server-port="]).edit();
        assert_eq!((none.prefs.relay_server_port, none.set.len()), (None, 1));
    }

    #[test]
    fn a_setting_made_before_must_be_mentioned_again() {
        let mut prefs = Prefs::new();
        prefs.hostname = "gw".into();
        prefs.route_all = true;
        prefs.advertise_tags = vec!["tag:a".into(), "tag:b".into()];
        let edit = settings(&["--hostname=other"]).edit();
        assert_eq!(unmentioned(&prefs, &edit), ["--accept-routes", "--advertise-tags=tag:a,tag:b"]);
        assert_eq!(mentioned(&edit), ["--hostname=other"]);
        reset(&mut prefs, &edit);
        assert_eq!(prefs, Prefs { hostname: "gw".into(), ..Prefs::new() });
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        assert!(parse_route("192.0.2.1/24").unwrap_err().contains("did you mean 192.0.2.0/24"));
        assert!(parse_route("lan").unwrap_err().contains("192.0.2.0/24"));
        assert_eq!(parse_tag("gw").as_deref(), Ok("tag:gw"));
        assert!(parse_tag("tag:1").is_err());
        assert!(parse_tag("user:x").is_err());
    }
}
