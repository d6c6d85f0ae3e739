//! The stock `tailscale` command against the scripted node: it parses what we serve, and its edits arrive.

use std::path::PathBuf;
use std::process::{Command, Output};

use wire::local::State;

use crate::scripted::Scripted;

/// `tailscale` in the PATH or where Go installs it.
fn tailscale() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let places = std::env::split_paths(&path).chain(home);
    places.map(|folder| folder.join("tailscale")).find(|file| file.is_file())
}

/// The command bound to `node`, or a line that says why not.
fn command(node: &Scripted) -> Option<impl Fn(&[&str]) -> Output> {
    let Some(binary) = tailscale() else {
        println!("SKIPPED: tailscale binary not found (cargo xtask setup installs it)");
        return None;
    };
    let socket = format!("--socket={}", node.socket().display());
    Some(move |arguments: &[&str]| {
        // A command that waits for what we never say ends too, with status 124.
        Command::new("timeout").arg("20").arg(&binary).arg(&socket).args(arguments).output().unwrap()
    })
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("Warning: client version"), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_what_we_serve() {
    let node = Scripted::new(State::Running);
    let Some(tailscale) = command(&node) else { return };
    node.inner().health = vec!["the sky is falling".into()];
    let status =
        ["100.64.0.2", "gw", "alice@", "active; direct 203.0.113.7:41641, tx 9 rx 8", "the sky is falling"];
    says(&tailscale(&["status"]), 0, &status);
    let text = tailscale(&["status"]).stdout;
    assert!(!String::from_utf8_lossy(&text).contains("404"), "it asked for something we do not serve");
    let json = tailscale(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status["Self"]["DNSName"], "me.net.test.");
    assert_eq!(status["CurrentTailnet"]["MagicDNSSuffix"], "net.test");
    says(&tailscale(&["ip", "-4"]), 0, &["100.64.0.1"]);
    says(&tailscale(&["ip", "gw"]), 0, &["100.64.0.2"]);
    says(&tailscale(&["ping", "gw"]), 0, &["pong from gw (100.64.0.2) via 203.0.113.7:41641 in 4ms"]);
    says(&tailscale(&["ping", "--tsmp", "gw"]), 0, &["via TSMP in 4ms"]);
    says(&tailscale(&["ping", "100.64.0.9"]), 1, &["no matching peer"]);
    says(&tailscale(&["whois", "100.64.0.2"]), 0, &["gw.net.test", "alice@example.com"]);
    says(&tailscale(&["whois", "100.64.0.9"]), 1, &["peer not found"]);
    says(&tailscale(&["version", "--daemon"]), 0, &["Daemon: 0.1.0"]);
    says(&tailscale(&["metrics"]), 0, &["underpass_peers 1"]);
    says(&tailscale(&["wait", "--timeout=50ms"]), 1, &[]);
    says(&tailscale(&["switch", "--list"]), 0, &["1ab3"]);
    says(&tailscale(&["exit-node", "suggest"]), 0, &["No exit node suggestion is available"]);
    says(&tailscale(&["debug", "prefs"]), 0, &["\"ControlURL\": \"https://203.0.113.10\"", "\"LoginName\""]);
    says(&tailscale(&["debug", "netmap"]), 0, &["gw.net.test."]);
    says(&tailscale(&["debug", "derp-map"]), 0, &["Headquarters"]);
    says(&tailscale(&["debug", "watch-ipn", "--initial", "--count=1"]), 0, &["\"State\": 6"]);
    says(&tailscale(&["debug", "reload-config"]), 1, &["config mode not in use"]);
    says(&tailscale(&["dns", "status"]), 0, &["MagicDNS: disabled tailnet-wide"]);
    says(&tailscale(&["bugreport"]), 0, &["underpass 0.1.0, Linux"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_edits_arrive() {
    let node = Scripted::new(State::Running);
    let Some(tailscale) = command(&node) else { return };
    says(
        &tailscale(&["set", "--hostname=new", "--advertise-routes=198.51.100.0/24", "--auto-update"]),
        0,
        &[],
    );
    {
        let inner = node.inner();
        assert_eq!(inner.prefs.hostname, "new");
        assert_eq!(inner.prefs.advertise_routes, ["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(inner.prefs.auto_update.apply, Some(true));
        assert!(inner.prefs.auto_update.check, "which was not in the mask");
    }
    says(&tailscale(&["down"]), 0, &[]);
    assert!(!node.inner().prefs.want_running);
    says(&tailscale(&["status"]), 1, &["stopped"]);
    says(&tailscale(&["up"]), 0, &[]);
    assert!(node.inner().prefs.want_running);
    says(
        &tailscale(&["up", "--accept-routes"]),
        1,
        &["--hostname=new", "--login-server=https://203.0.113.10"],
    );
    says(&tailscale(&["logout"]), 0, &[]);
    says(&tailscale(&["status"]), 1, &["Logged out."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_with_a_key() {
    let node = Scripted::new(State::NeedsLogin);
    let Some(tailscale) = command(&node) else { return };
    let up =
        ["up", "--login-server=https://203.0.113.10", "--auth-key=secret", "--timeout=10s", "--hostname=me"];
    node.inner().refuse_login = Some("the auth key has expired".into());
    says(&tailscale(&up), 1, &["backend error: the auth key has expired"]);
    node.inner().refuse_login = None;
    says(&tailscale(&up), 0, &[]);
    assert_eq!(node.inner().prefs.hostname, "me");
    says(&tailscale(&["status"]), 0, &["gw"]);
}
