//! LocalAPI answers of tailscaled 1.102.5, captured on a network of our own server: read, and written again byte for byte.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::PrettyFormatter;
use wire::local::{
    LoginProfile, MaskedPrefs, Notify, NotifyMask, NotifyMaskError, Options, Persist, PingResult, Pref,
    Prefs, State, Status, WhoIsResponse,
};

/// Reads a capture and writes it again as it was.
#[track_caller]
fn round<T: DeserializeOwned + Serialize>(capture: &str) -> T {
    let value: T = serde_json::from_str(capture).unwrap();
    let mut again = Vec::new();
    if capture.starts_with("{\n") {
        let mut pretty =
            serde_json::Serializer::with_formatter(&mut again, PrettyFormatter::with_indent(b"\t"));
        value.serialize(&mut pretty).unwrap();
    } else {
        serde_json::to_writer(&mut again, &value).unwrap();
    }
    assert_eq!(String::from_utf8(again).unwrap().trim_end(), capture.trim_end());
    value
}

#[test]
fn a_running_status() {
    let status: Status = round(include_str!("status-running.json"));
    assert_eq!(status.backend_state, State::Running);
    let own = status.self_node.unwrap();
    assert_eq!((own.addrs.len(), own.peer_api_url.len(), own.last_seen.get()), (1, 2, None));
    let routed = status.peer.values().find(|peer| peer.host_name == "b").unwrap();
    assert_eq!(routed.primary_routes.as_ref().map(Vec::len), Some(1));
    assert_eq!(status.user.values().next().unwrap().login_name, "alice");
}

#[test]
fn a_status_without_a_login() {
    // The one place where Go's slice is empty and not nil.
    let capture = include_str!("status-logged-out.json").replace("\"Addrs\": []", "\"Addrs\": null");
    let status: Status = round(&capture);
    assert_eq!(status.backend_state, State::NeedsLogin);
    assert!(status.current_tailnet.is_none() && !status.have_node_key);
}

#[test]
fn prefs_and_what_registration_left_in_them() {
    let prefs: Prefs = round(include_str!("prefs.json"));
    let fresh = Prefs {
        control_url: "https://203.0.113.10".into(),
        hostname: "stock".into(),
        want_running: true,
        persist: prefs.persist.clone(),
        ..Prefs::new()
    };
    assert_eq!(prefs, fresh, "Prefs::new is what a fresh tailscaled begins with");
    let persist = prefs.persist.unwrap();
    assert_eq!(persist, Persist::new(persist.user_profile.clone(), persist.node_id.clone()));
}

#[test]
fn the_first_message_of_the_bus() {
    let notify: Notify = round(include_str!("notify.json"));
    assert_eq!(notify.state, Some(State::Running));
    assert!(notify.prefs.is_some() && notify.health.is_some() && notify.net_map.is_none());
}

#[test]
fn whois_profile_and_ping() {
    let found: WhoIsResponse = round(include_str!("whois.json"));
    assert_eq!(found.node.name, "b.underpass.internal.");
    let profile: LoginProfile = round(include_str!("profile.json"));
    assert_eq!(profile.key, "profile-2abd");
    let pong: PingResult = round(include_str!("ping.json"));
    assert_eq!((pong.derp_region_id.0, pong.endpoint.as_str()), (900, ""));
}

#[test]
fn an_edit_is_values_and_a_mask() {
    let text = r#"{"Hostname":"gw","HostnameSet":true,"RouteAll":true,"RouteAllSet":false,"ShieldsUpSet":null,
        "AutoUpdate":{"Check":false,"Apply":true},"AutoUpdateSet":{"ApplySet":true}}"#;
    let edit: MaskedPrefs = serde_json::from_str(text).unwrap();
    assert_eq!(edit.set.iter().copied().collect::<Vec<_>>(), [Pref::Hostname]);
    let mut prefs = Prefs::new();
    prefs.apply(&edit);
    assert_eq!((prefs.hostname.as_str(), prefs.route_all), ("gw", false));
    assert_eq!((prefs.auto_update.check, prefs.auto_update.apply), (true, Some(true)));
    let again: MaskedPrefs = serde_json::from_str(&serde_json::to_string(&edit).unwrap()).unwrap();
    assert_eq!(again, edit);
    assert!(MaskedPrefs::default().is_empty() && !edit.is_empty());
    for bad in [r#"{"HostnameSet":1}"#, r#"{"Hostname":1}"#, "[]", r#"{"NetfilterMode":7}"#] {
        assert!(serde_json::from_str::<MaskedPrefs>(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_pref_is_a_field_of_the_json() {
    let json = serde_json::to_value(Prefs { auto_exit_node: "any".into(), ..Prefs::new() }).unwrap();
    let absent = Pref::ALL.iter().map(|pref| pref.name()).filter(|name| json.get(name).is_none());
    let omitted = [
        "ForceDaemon",
        "Egg",
        "OperatorUser",
        "ProfileName",
        "RelayServerPort",
        "RelayServerStaticEndpoints",
    ];
    assert_eq!(absent.collect::<Vec<_>>(), omitted, "which Go leaves out when they are zero");
}

#[test]
fn a_mask_decides_what_a_watcher_hears() {
    let notify = Notify { peers_removed: vec![types::NodeId(7)], ..Notify::default() };
    assert_eq!(notify.filtered(NotifyMask::default()), None);
    assert_eq!(notify.filtered(NotifyMask::PEER_PATCHES), Some(notify.clone()));
    let state = Notify { state: Some(State::Stopped), ..notify };
    let heard = state.filtered(NotifyMask::ENGINE_UPDATES).unwrap();
    assert!(heard.state.is_some() && heard.peers_removed.is_empty());
    let both = NotifyMask::RATE_LIMIT | NotifyMask::INITIAL_STATUS;
    assert_eq!(both.check(), Err(NotifyMaskError::RateLimitedDeltas));
    assert_eq!(NotifyMask::IN_PROCESS.check(), Err(NotifyMaskError::InProcess));
    assert_eq!(NotifyMask::RATE_LIMIT.check(), Ok(()));
}

#[test]
fn an_auth_key_does_not_reach_a_log() {
    let options: Options = serde_json::from_str(r#"{"AuthKey":"tskey-secret"}"#).unwrap();
    assert_eq!(options.auth_key, "tskey-secret");
    assert!(!format!("{options:?}").contains("tskey"), "{options:?}");
}
