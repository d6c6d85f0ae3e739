//! The server's HTTP: what is refused, what the answers look like, how the bus streams.

use std::sync::Arc;

use wire::local::{EngineStatus, Notify, Prefs, State};

use crate::http::{lines, raw, request};
use crate::scripted::Scripted;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_could_send_is_refused() {
    let node = Scripted::new(State::Running);
    let line = "GET /localapi/v0/status";
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost:80\r\n",
        "Host: local-tailscaled.sock\r\nOrigin: http://evil.example\r\n",
        "Host: local-tailscaled.sock\r\nReferer: http://evil.example/\r\n",
    ] {
        let answer = raw(&node.socket(), line, headers, "");
        assert_eq!((answer.status, answer.body.trim()), (403, "invalid localapi request"), "{headers}");
    }
    for headers in ["Host: local-tailscaled.sock\r\n", "Host:\r\n"] {
        assert_eq!(raw(&node.socket(), line, headers, "").status, 200, "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_the_capability_and_no_version_to_warn_of() {
    let node = Scripted::new(State::Running);
    let answer = request(&node.socket(), "GET /localapi/v0/status?peers=false", "", "");
    let cap = types::CapabilityVersion::CURRENT;
    assert!(answer.head.contains(&format!("tailscale-cap: {cap}")), "{}", answer.head);
    assert!(!answer.head.contains("tailscale-version"), "{}", answer.head);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let status = answer.json();
    assert_eq!(status["BackendState"], "Running");
    assert!(status["Peer"].is_null());
    let whole = request(&node.socket(), "GET /localapi/v0/status", "", "").json();
    assert_eq!(whole["Peer"].as_object().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_wrong_parameters_say_what_tailscale_says() {
    let node = Scripted::new(State::Running);
    let check = |line: &str, status, text: &str| {
        let answer = request(&node.socket(), line, "", "");
        assert_eq!((answer.status, answer.body.trim()), (status, text), "{line}");
    };
    check("GET /localapi/v0/id-token", 404, "404 page not found");
    check("GET /localapi/v1/status", 404, "404 page not found");
    check("GET /", 200, "underpass");
    check("GET /localapi/v0/whois", 400, "missing 'addr' parameter");
    check("GET /localapi/v0/whois?addr=gw", 400, "invalid 'addr' parameter");
    check("GET /localapi/v0/whois?addr=100.64.0.9", 404, "no match for IP:port");
    check("POST /localapi/v0/ping?type=disco", 400, "missing 'ip' parameter");
    check("POST /localapi/v0/ping?ip=100.64.0.2", 400, "missing 'type' parameter");
    check("GET /localapi/v0/peer-by-id?id=0", 400, "invalid 'id' parameter");
    check("GET /localapi/v0/peer-by-id?id=9", 404, "no peer with that NodeID");
    check("GET /localapi/v0/watch-ipn-bus?mask=x", 400, "bad mask");
    check("GET /localapi/v0/profiles/none", 404, "Profile not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_what_its_mask_names() {
    let node = Scripted::new(State::Running);
    let body = r#"{"Hostname":"new","HostnameSet":true,"ShieldsUp":true,"AdvertiseTags":null}"#;
    let prefs = request(&node.socket(), "PATCH /localapi/v0/prefs", "", body).json();
    assert_eq!((&prefs["Hostname"], &prefs["ShieldsUp"]), (&"new".into(), &false.into()));
    assert_eq!(node.inner().prefs.hostname, "new");
    let internal = r#"{"InternalExitNodePrior":"x","InternalExitNodePriorSet":true}"#;
    let refused = request(&node.socket(), "PATCH /localapi/v0/prefs", "", internal);
    assert_eq!(refused.status, 400);
    assert!(refused.json()["Error"].as_str().unwrap().contains("InternalExitNodePrior"));
    assert_eq!(request(&node.socket(), "PATCH /localapi/v0/prefs", "", "{").status, 400);
    let long = format!("{{\"Hostname\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(request(&node.socket(), "POST /localapi/v0/check-prefs", "", &long).status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_the_state_first_and_then_what_its_mask_lets_through() {
    let node = Scripted::new(State::Running);
    let mut quiet = lines(&node.socket(), "watch-ipn-bus?mask=6");
    let first = quiet().unwrap();
    assert_eq!((&first["State"], &first["Prefs"]["WantRunning"]), (&6.into(), &true.into()));
    assert!(!first["SessionID"].as_str().unwrap().is_empty());
    assert!(first["NetMap"].is_null());
    let mut counting = lines(&node.socket(), "watch-ipn-bus?mask=1");
    assert_eq!(counting().unwrap()["Engine"]["RBytes"], 7, "asked for every two seconds, and at once");
    let engine = Some(EngineStatus::default());
    node.bus.send(Arc::new(Notify { engine, ..Notify::default() })).unwrap();
    let changed = Notify { prefs: Some(Prefs::new()), ..Notify::default() };
    node.bus.send(Arc::new(changed)).unwrap();
    let next = quiet().unwrap();
    assert!(next["Prefs"].is_object() && next["Engine"].is_null() && next["State"].is_null(), "{next}");
    assert_eq!(next["Version"], "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let node = Scripted::new(State::Running);
    let mut next = lines(&node.socket(), "watch-ipn-bus?mask=2");
    next().unwrap();
    // More than the bus, the connection's queue and the socket's buffer hold together.
    let long = Notify { err_message: Some("x".repeat(1 << 16)), ..Notify::default() };
    for _ in 0..4096 {
        let _ = node.bus.send(Arc::new(long.clone()));
    }
    let mut heard = 0;
    while next().is_some() {
        heard += 1;
    }
    assert!(heard < 4096, "all were kept for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_closes_its_streams() {
    let node = Scripted::new(State::Running);
    let socket = node.socket();
    let mut next = lines(&socket, "watch-ipn-bus?mask=2");
    next().unwrap();
    assert_eq!(request(&socket, "POST /localapi/v0/shutdown", "", "").status, 200);
    let Scripted { bus, .. } = node;
    drop(bus);
    assert_eq!(next(), None);
}
