//! The declarative configuration: Tailscale's HuJSON file of version `alpha0` (`ipn/conf.go`) as an edit of the preferences.
//!
//! Read once at start and again on `reload-config`. A field this node does not know is an error that names it, never ignored.
//! Deliberately not here: services, serve and relay settings, which the node does not offer.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;
use types::StableNodeId;
use types::overlay::EXIT_ROUTES;
use wire::control::AuthKey;
use wire::local::{MaskedPrefs, NetfilterMode, Pref, Prefs};

/// What the file asks for.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    /// The preferences it sets.
    pub(crate) edit: MaskedPrefs,
    /// The key to register with while there is no login.
    pub(crate) auth_key: Option<AuthKey>,
    /// Whether `set` and `up` may change what the file sets.
    pub(crate) locked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "PascalCase")]
struct Alpha0 {
    /// The service's documentation writes it small.
    #[serde(alias = "version")]
    version: String,
    locked: Option<bool>,
    #[serde(rename = "ServerURL")]
    server_url: Option<String>,
    auth_key: Option<String>,
    enabled: Option<bool>,
    operator_user: Option<String>,
    hostname: Option<String>,
    #[serde(rename = "acceptDNS", alias = "AcceptDNS")]
    accept_dns: Option<bool>,
    #[serde(rename = "acceptRoutes", alias = "AcceptRoutes")]
    accept_routes: Option<bool>,
    #[serde(rename = "exitNode", alias = "ExitNode")]
    exit_node: Option<String>,
    #[serde(rename = "allowLANWhileUsingExitNode", alias = "AllowLANWhileUsingExitNode")]
    allow_lan_while_using_exit_node: Option<bool>,
    advertise_routes: Option<Vec<IpNet>>,
    advertise_exit_node: Option<bool>,
    #[serde(rename = "DisableSNAT")]
    disable_snat: Option<bool>,
    netfilter_mode: Option<String>,
    no_stateful_filtering: Option<bool>,
    shields_up: Option<bool>,
}

impl ConfigFile {
    /// Reads and understands the file.
    ///
    /// # Errors
    /// A sentence with the file, the place in it and what is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        Self::parse(&text).map_err(|error| named(&error))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Alpha0 = jsonc_parser::parse_to_serde_value(text, &jsonc_parser::ParseOptions::default())
            .map_err(|error| error.to_string())?;
        if file.version != "alpha0" {
            return Err(format!("version {:?} is not supported; use \"alpha0\"", file.version));
        }
        let mut edit = Edit::default();
        edit.set(Pref::WantRunning, Some(file.enabled != Some(false)), |prefs| &mut prefs.want_running);
        edit.set(Pref::ControlUrl, file.server_url, |prefs| &mut prefs.control_url);
        edit.set(Pref::OperatorUser, file.operator_user, |prefs| &mut prefs.operator_user);
        edit.set(Pref::Hostname, file.hostname, |prefs| &mut prefs.hostname);
        edit.set(Pref::CorpDns, file.accept_dns, |prefs| &mut prefs.corp_dns);
        edit.set(Pref::RouteAll, file.accept_routes, |prefs| &mut prefs.route_all);
        edit.set(Pref::ExitNodeAllowLanAccess, file.allow_lan_while_using_exit_node, |prefs| {
            &mut prefs.exit_node_allow_lan_access
        });
        match file.exit_node.as_deref().map(str::parse::<IpAddr>) {
            Some(Ok(ip)) => edit.set(Pref::ExitNodeIp, Some(ip.into()), |prefs| &mut prefs.exit_node_ip),
            _ => {
                edit.set(Pref::ExitNodeId, file.exit_node.map(StableNodeId), |prefs| &mut prefs.exit_node_id);
            }
        }
        let routes = routes(file.advertise_routes, file.advertise_exit_node == Some(true))?;
        edit.set(Pref::AdvertiseRoutes, routes, |prefs| &mut prefs.advertise_routes);
        edit.set(Pref::NoSnat, file.disable_snat, |prefs| &mut prefs.no_snat);
        edit.set(Pref::NetfilterMode, file.netfilter_mode.map(netfilter_mode).transpose()?, |prefs| {
            &mut prefs.netfilter_mode
        });
        edit.set(Pref::NoStatefulFiltering, file.no_stateful_filtering.map(Some), |prefs| {
            &mut prefs.no_stateful_filtering
        });
        edit.set(Pref::ShieldsUp, file.shields_up, |prefs| &mut prefs.shields_up);
        Ok(Self {
            edit: edit.0,
            auth_key: file.auth_key.map(auth_key).transpose()?.filter(|key| !key.0.is_empty()),
            locked: file.locked != Some(false),
        })
    }
}

/// The edit in the making.
#[derive(Default)]
struct Edit(MaskedPrefs);

impl Edit {
    fn set<T>(&mut self, pref: Pref, value: Option<T>, field: impl FnOnce(&mut Prefs) -> &mut T) {
        if let Some(value) = value {
            *field(&mut self.0.prefs) = value;
            self.0.set.insert(pref);
        }
    }
}

fn routes(routes: Option<Vec<IpNet>>, exit_node: bool) -> Result<Option<Vec<IpNet>>, String> {
    if let Some(route) = routes.iter().flatten().find(|route| route.trunc() != **route) {
        return Err(format!(
            "AdvertiseRoutes: {route} has bits behind its prefix; did you mean {}?",
            route.trunc()
        ));
    }
    if !exit_node {
        return Ok(routes);
    }
    Ok(Some(routes.into_iter().flatten().chain(EXIT_ROUTES).collect()))
}

fn netfilter_mode(word: String) -> Result<NetfilterMode, String> {
    [NetfilterMode::Off, NetfilterMode::NoDivert, NetfilterMode::On]
        .into_iter()
        .find(|mode| mode.name() == word)
        .ok_or_else(|| format!("NetfilterMode: {word:?} is not on, off or nodivert"))
}

/// A key itself, or `file:` and where it is written.
fn auth_key(text: String) -> Result<AuthKey, String> {
    match text.strip_prefix("file:") {
        None => Ok(AuthKey(text)),
        Some(path) => std::fs::read_to_string(path)
            .map(|key| AuthKey(key.trim().to_owned()))
            .map_err(|error| format!("AuthKey: {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_fine_and_only_what_is_named_is_set() {
        let file = ConfigFile::parse(
            r#"{
                "Version": "alpha0", // the only one
                "ServerURL": "https://203.0.113.10",
                "AuthKey": "tskey-1",
                "acceptRoutes": true,
                "AdvertiseRoutes": ["192.168.5.0/24"],
                "Locked": false,
            }"#,
        )
        .unwrap();
        let set = [Pref::ControlUrl, Pref::RouteAll, Pref::WantRunning, Pref::AdvertiseRoutes];
        assert_eq!(file.edit.set, set.into());
        assert!(file.edit.prefs.route_all && file.edit.prefs.want_running && !file.locked);
        assert_eq!(file.auth_key, Some(AuthKey("tskey-1".into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            (r#"{"Version":"beta"}"#, "beta"),
            (r#"{"Version":"alpha0","ShieldUp":true}"#, "ShieldUp"),
            (r#"{"Version":"alpha0","AdvertiseRoutes":["10.0.0.1/8"]}"#, "10.0.0.0/8"),
            (r#"{"Version":"alpha0","NetfilterMode":"maybe"}"#, "maybe"),
            ("{", ""),
        ] {
            let error = ConfigFile::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
