//! Our own command line against the scripted node: what it prints, how it ends, and who may do what.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use wire::local::{Notify, State};

use crate::http::request;
use crate::scripted::Scripted;

const BINARY: &str = env!("CARGO_BIN_EXE_underpass");
/// The user `nobody` of every distribution.
const NOBODY: u32 = 65_534;

fn underpass(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.env_remove("UNDERPASS_SOCKET").arg("--socket").arg(socket).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reading_commands_show_the_node() {
    let node = Scripted::new(State::Running);
    let run = |arguments: &[&str]| underpass(&node.socket(), arguments);
    says(
        &run(&["status"]),
        0,
        &["100.64.0.2", "gw", "alice@", "direct 203.0.113.7:41641, tx 9 rx 8", "3 no_rule"],
    );
    says(&run(&["status", "--json"]), 0, &["\"TailscaleIPs\"", "\"Underpass\""]);
    says(&run(&["ip"]), 0, &["100.64.0.1\n"]);
    says(&run(&["ip", "gw"]), 0, &["100.64.0.2\n"]);
    says(&run(&["ip", "-6"]), 1, &["no such address"]);
    says(&run(&["ip", "--assert", "100.64.0.1"]), 0, &[]);
    says(&run(&["ping", "gw"]), 0, &["pong from gw (100.64.0.2) via 203.0.113.7:41641 in 4.0ms"]);
    says(&run(&["ping", "100.64.0.9"]), 1, &["no matching peer"]);
    says(&run(&["whois", "100.64.0.2:22"]), 0, &["gw.net.test", "alice@example.com"]);
    says(&run(&["whois", "100.64.0.9"]), 1, &["no node of the network has 100.64.0.9"]);
    says(&run(&["netcheck"]), 0, &["yes, 203.0.113.1:41641", "Headquarters"]);
    says(&run(&["metrics"]), 0, &["underpass_peers 1"]);
    says(&run(&["metrics", "--json"]), 0, &["\"underpass_peers\": 1.0"]);
    says(&run(&["version", "--daemon"]), 0, &["Client: ", "Daemon: 0.1.0"]);
    says(&run(&["debug", "paths"]), 0, &["gw", "203.0.113.7:41641", "2.0ms", "nothing better"]);
    says(&run(&["debug", "paths", "gw", "--json"]), 0, &["\"Why\": \"used: it answers"]);
    says(&run(&["debug", "netmap"]), 0, &["\"gw.net.test.\""]);
    says(
        &run(&["debug", "trace", "--peer", "gw", "--drops"]),
        1,
        &["from_tunnel drop no rule", "closed the stream"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_an_end_ends_with_its_reader() {
    let node = Scripted::new(State::Running);
    let mut command = Command::new(BINARY);
    command.arg("--socket").arg(node.socket()).args(["debug", "watch"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(watch.stdout.take());
    // What it wrote before its reader left went well; the next message does not.
    let status = loop {
        if let Some(status) = watch.try_wait().unwrap() {
            break status;
        }
        let _ = node.bus.send(Arc::new(Notify { state: Some(State::Running), ..Notify::default() }));
        tokio::task::yield_now().await;
    };
    assert_eq!(status.code(), Some(141));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_states_apart() {
    let node = Scripted::new(State::Stopped);
    says(&underpass(&node.socket(), &["status"]), 1, &["underpass up"]);
    says(&underpass(&node.socket(), &["status", "--json"]), 0, &["\"Stopped\""]);
    says(&underpass(&node.socket(), &["wait", "--timeout", "100ms"]), 5, &["not up"]);
    says(&underpass(&node.folder().join("none"), &["status"]), 3, &["none", "sudo underpass node"]);
    says(&underpass(&node.socket(), &["set"]), 1, &["--hostname"]);
    says(&underpass(&node.socket(), &["up", "--timeout", "soon"]), 2, &["30s"]);
    node.inner().state = State::NeedsLogin;
    node.inner().auth_url = "https://203.0.113.10/register/abc".into();
    says(&underpass(&node.socket(), &["status"]), 1, &["Log in at: https://203.0.113.10/register/abc"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn down_up_and_set_change_the_settings() {
    let node = Scripted::new(State::Running);
    says(&underpass(&node.socket(), &["set", "--hostname=new", "--accept-routes"]), 0, &[]);
    let prefs = node.inner().prefs.clone();
    assert_eq!((prefs.hostname.as_str(), prefs.route_all), ("new", true));
    says(&underpass(&node.socket(), &["set", "--hostname=two words"]), 1, &["a hostname has no spaces"]);
    says(&underpass(&node.socket(), &["down"]), 0, &[]);
    assert!(!node.inner().prefs.want_running);
    says(&underpass(&node.socket(), &["up"]), 0, &[]);
    assert!(node.inner().prefs.want_running);
    says(
        &underpass(&node.socket(), &["up", "--shields-up"]),
        1,
        &["--accept-routes --hostname=new", "--reset"],
    );
    says(&underpass(&node.socket(), &["up", "--reset", "--shields-up"]), 0, &[]);
    assert!(node.inner().prefs.shields_up && node.inner().prefs.hostname.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn up_with_a_key_reads_the_file_and_waits_for_running() {
    let node = Scripted::new(State::NeedsLogin);
    let file = node.folder().join("key");
    std::fs::write(&file, "secret\n").unwrap();
    let key = format!("--auth-key=file:{}", file.display());
    let up = ["up", "--login-server=https://203.0.113.10", &key, "--hostname=me"];
    node.inner().refuse_login = Some("the auth key has expired".into());
    says(&underpass(&node.socket(), &up), 1, &["the auth key has expired"]);
    node.inner().refuse_login = None;
    says(&underpass(&node.socket(), &up), 0, &[]);
    assert_eq!(node.inner().prefs.control_url, "https://203.0.113.10");
    says(&underpass(&node.socket(), &[&up[..], &["--json"]].concat()), 0, &["\"BackendState\": \"Running\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_without_a_key_shows_the_url_and_waits_for_the_person() {
    let node = Scripted::new(State::NeedsLogin);
    let late = ["up", "--login-server=https://203.0.113.10", "--timeout=300ms"];
    node.inner().health = vec!["waiting for a person".into()];
    let words = ["To authenticate, visit:", "https://203.0.113.10/register/abc", "waiting for a person"];
    says(&underpass(&node.socket(), &late), 5, &words);
    let socket = node.socket();
    let waiting = std::thread::spawn(move || underpass(&socket, &["up", "--timeout=10s"]));
    // The first subscriber is that `up`; only then has it something to miss.
    while node.bus.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    node.inner().state = State::Running;
    node.bus.send(Arc::new(Notify { state: Some(State::Running), ..Notify::default() })).unwrap();
    says(&waiting.join().unwrap(), 0, &["Success."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_read_and_only_root_and_the_operator_may_write() {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        println!("SKIPPED: becoming another user needs root");
        return;
    }
    let node = Scripted::new(State::Running);
    let binary = node.folder().join("underpass");
    std::fs::copy(BINARY, &binary).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.uid(NOBODY).gid(NOBODY).arg("--socket").arg(node.socket()).args(arguments).output().unwrap()
    };
    says(&as_nobody(&["status"]), 0, &["gw"]);
    says(&as_nobody(&["ping", "gw"]), 0, &["pong"]);
    for arguments in [
        &["set", "--hostname=x"][..],
        &["down"],
        &["logout"],
        &["debug", "netmap"],
        &["debug", "trace"],
        &["debug", "shutdown"],
        &["up", "--reset"],
    ] {
        says(&as_nobody(arguments), 4, &["access denied", "sudo", "--operator"]);
    }
    assert!(node.inner().prefs.hostname.is_empty() && node.inner().prefs.want_running);
    // Whatever a header says.
    let claimed = request(&node.socket(), "GET /localapi/v0/status", "X-Remote-User: root\r\n", "");
    assert_eq!(claimed.status, 200);
    node.inner().prefs.operator_user = "nobody".into();
    says(&as_nobody(&["set", "--hostname=mine"]), 0, &[]);
    assert_eq!(node.inner().prefs.hostname, "mine");
}
