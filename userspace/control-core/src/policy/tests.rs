//! The compiler against what Tailscale's own service answered (`tests/fixtures`), and the wording of errors.
//!
//! `UNDERPASS_POLICY_ORACLE` may name a file with more records in the same form, one JSON object a line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use wire::control::FilterRule;

const FIXTURE: &str = include_str!("../../tests/fixtures/policy-captures.jsonl");

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn nets(value: &Value) -> Vec<IpNet> {
    strings(value).iter().map(|net| net.parse().unwrap()).collect()
}

/// The topology's nodes by host name; users go by their mail address.
fn subjects(record: &Value, policy: &Policy) -> BTreeMap<String, Subject> {
    let mail = |name: &str| {
        let users = record["topology"]["users"].as_array().unwrap();
        users.iter().find(|user| user["name"] == name).unwrap()["email"].as_str().unwrap().to_owned()
    };
    let nodes = record["topology"]["nodes"].as_object().unwrap();
    let subject = |(index, (name, node)): (usize, (&String, &Value))| {
        let (approved, tags) = (nets(&node["approved_routes"]), strings(&node["tags"]));
        let user = node["user"].as_str().map(mail).unwrap_or_default();
        let serves = |net: &IpNet| approved.contains(net) || policy.approves(&user, &tags, *net);
        let routes: Vec<_> = nets(&node["routable_ips"]).into_iter().filter(serves).collect();
        let exit = |net: &IpNet| types::overlay::EXIT_ROUTES.contains(net);
        let subject = Subject {
            id: NodeId(i64::try_from(index).unwrap() + 1),
            user,
            tags,
            addresses: ["ipv4", "ipv6"].map(|key| node[key].as_str().unwrap().parse().unwrap()).to_vec(),
            exit: routes.iter().any(exit),
            routes: routes.into_iter().filter(|net| !exit(net)).collect(),
        };
        (name.clone(), subject)
    };
    nodes.iter().enumerate().map(subject).collect()
}

fn source_set(source: &str) -> IpSet {
    let all = || types::overlay::EXIT_ROUTES.into_iter().collect();
    if source == "*" { all() } else { term::nets(source).unwrap() }
}

/// What a filter lets in, in one spelling: destination, ports, protocols to the set of sources.
fn meaning(rules: &[FilterRule]) -> BTreeMap<(String, u16, u16, Vec<i32>), Vec<String>> {
    let mut sets = BTreeMap::<_, IpSet>::new();
    for rule in rules {
        for port in &rule.dst_ports {
            let ip = term::nets(&port.ip).map_or_else(|| port.ip.clone(), |set| set.texts().collect());
            let key = (ip, port.ports.first, port.ports.last, rule.ip_proto.clone());
            for source in &rule.src_ips {
                sets.entry(key.clone()).or_default().extend(&source_set(source));
            }
        }
    }
    sets.into_iter().map(|(key, set)| (key, set.texts().collect())).collect()
}

/// The capabilities a filter tells of, in one spelling: towards whom, name and values to the set of sources.
fn granted(rules: &[FilterRule]) -> BTreeMap<(String, String, String), Vec<String>> {
    let mut sets = BTreeMap::<_, IpSet>::new();
    for rule in rules {
        for grant in &rule.cap_grant {
            for (name, values) in &grant.cap_map.0 {
                let values: Vec<Value> = values.iter().map(|raw| raw.parse().unwrap()).collect();
                for dst in &grant.dsts {
                    let key = (dst.to_string(), name.clone(), Value::from(values.clone()).to_string());
                    for source in &rule.src_ips {
                        sets.entry(key.clone()).or_default().extend(&source_set(source));
                    }
                }
            }
        }
    }
    sets.into_iter().map(|(key, set)| (key, set.texts().collect())).collect()
}

/// Whether a record is about something that this server refuses by name.
fn is_refused(policy: &Value) -> bool {
    let via = |grant: &Value| !grant["via"].is_null();
    policy.as_object().unwrap().keys().any(|name| !document::SECTIONS.contains(&name.as_str()))
        || policy["grants"].as_array().is_some_and(|grants| grants.iter().any(via))
}

/// Why a record is not reproduced, or nothing.
fn difference(record: &Value) -> Option<String> {
    let parsed = Policy::parse(&record["policy"].to_string());
    if record["response_code"] != 200 || is_refused(&record["policy"]) {
        return parsed.is_ok().then(|| "accepted where the service refused".to_owned());
    }
    let policy = match parsed {
        Ok(policy) => policy,
        Err(error) => return Some(format!("refused: {error}")),
    };
    let subjects = subjects(record, &policy);
    let all: Vec<_> = subjects.values().cloned().collect();
    let compiled = policy.compile(&all);
    for (name, capture) in record["captures"].as_object().unwrap() {
        let subject = &subjects[name];
        let wanted: Option<Vec<FilterRule>> =
            serde_json::from_value(capture["filter_rules"].clone()).unwrap();
        let (filter, wanted) = (compiled.filter(subject), wanted.unwrap_or_default());
        let (ours, theirs) = (meaning(&filter), meaning(&wanted));
        if ours != theirs {
            return Some(format!("filter of {name}: {ours:?}, the service has {theirs:?}"));
        }
        let (ours, theirs) = (granted(&filter), granted(&wanted));
        if ours != theirs {
            return Some(format!("capabilities of {name}: {ours:?}, the service has {theirs:?}"));
        }
        let ours = peers(&compiled, subject, &subjects);
        let theirs = captured_peers(capture, &subjects);
        if ours != theirs {
            return Some(format!("peers of {name}: {ours:?}, the service has {theirs:?}"));
        }
    }
    None
}

/// The peers of `viewer`, each with the routes the viewer needs.
fn peers(
    compiled: &Compiled,
    viewer: &Subject,
    all: &BTreeMap<String, Subject>,
) -> BTreeMap<String, Vec<String>> {
    let seen = all.iter().filter(|(_, peer)| peer.id != viewer.id && compiled.sees(viewer.id, peer.id));
    seen.map(|(name, peer)| {
        let exit = types::overlay::EXIT_ROUTES.iter().filter(|_| peer.exit);
        // Of several nodes that serve a prefix the service has chosen one; which, the policy does not say.
        let shared = |net: &&IpNet| all.values().filter(|other| other.routes.contains(net)).count() > 1;
        let routes = peer.routes.iter().filter(|net| !shared(net)).chain(exit);
        let mut routes: Vec<_> =
            routes.filter(|net| compiled.needs_route(viewer.id, **net)).map(ToString::to_string).collect();
        routes.sort();
        (name.clone(), routes)
    })
    .collect()
}

fn captured_peers(capture: &Value, all: &BTreeMap<String, Subject>) -> BTreeMap<String, Vec<String>> {
    let peers = capture["peers"].as_array().unwrap().iter();
    peers
        .map(|peer| {
            let name = peer["name"].as_str().unwrap();
            let own = |net: &IpNet| all[name].addresses.iter().any(|addr| IpNet::from(*addr) == *net);
            let shared = |net: &IpNet| all.values().filter(|other| other.routes.contains(net)).count() > 1;
            let routes = nets(&peer["allowed_ips"]).into_iter().filter(|net| !own(net) && !shared(net));
            let mut routes: Vec<_> = routes.map(|net| net.to_string()).collect();
            routes.sort();
            (name.to_owned(), routes)
        })
        .collect()
}

#[test]
fn every_captured_record_is_reproduced() {
    let more =
        std::env::var("UNDERPASS_POLICY_ORACLE").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let text = more.as_deref().unwrap_or(FIXTURE);
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.len() >= 10);
    let wrong: Vec<_> = records
        .iter()
        .filter_map(|record| {
            difference(record).map(|why| format!("{}: {why}", record["id"].as_str().unwrap()))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), records.len(), wrong.join("\n"));
}

fn check_error(text: &str, wanted: &str) {
    let error = Policy::parse(text).unwrap_err().to_string();
    assert_eq!(error, wanted);
}

#[test]
fn errors_name_line_column_and_field() {
    check_error("", "line 1, column 1: policy: the file is empty; write {} to allow nothing");
    check_error(
        "{\n  // later\n  \"ssh\": [],\n}",
        "line 3, column 3: ssh: this server does not know this section, \
         only acls, grants, groups, hosts, tagOwners, autoApprovers",
    );
    check_error(
        "{\"acls\": [\n  {\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"tag:gw:22\"]},\n]}",
        "line 2, column 46: acls[0].dst[0]: dst=\"tag:gw:22\": tag not found: \"tag:gw\"; define it in tagOwners",
    );
    check_error(
        r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:99999"]}]}"#,
        "line 1, column 54: acls[0].dst[0]: dst=\"*:99999\": port range \"99999\": \
         expected *, N or N-M with numbers up to 65535",
    );
    check_error(
        r#"{"groups": {"group:a": ["alice"]}}"#,
        "line 1, column 25: groups.group:a[0]: \"alice\" is no user (users have an @)",
    );
    check_error(
        r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"], "srcPosture": []}]}"#,
        "line 1, column 62: acls[0].srcPosture: not understood here; known are action, proto, src and dst",
    );
}

#[test]
fn errors_in_grants_name_line_column_and_field() {
    check_error(
        "{\"grants\": [\n  {\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"], \"srcPosture\": []},\n]}",
        "line 2, column 45: grants[0].srcPosture: not understood here; known are src, dst, ip and app",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "via": ["tag:gw"]}]}"#,
        "line 1, column 55: grants[0].via: this server cannot steer by via yet; \
         leave it out, and routes are chosen for all alike",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "ip": ["*"]}]}"#,
        "line 1, column 13: grants[0]: \"dst\" is missing",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {}}]}"#,
        "line 1, column 13: grants[0]: ip and app can not both be empty",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:x"]}]}"#,
        "line 1, column 49: grants[0].ip[0]: ip=\"tcp:x\": port range \"x\": \
         expected *, N or N-M with numbers up to 65535",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/relay-target": [{}]}}]}"#,
        "line 1, column 50: grants[0].app.tailscale.com/cap/relay-target: \
         capability name \"tailscale.com/cap/relay-target\" must not be in the tailscale.com domain, \
         but for cap/drive, cap/relay, cap/webui, cap/kubernetes, cap/tsidp, cap/secrets",
    );
    check_error(
        r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {"example.com/cap/a": [7]}}]}"#,
        "line 1, column 72: grants[0].app.example.com/cap/a[0]: expected an object { ... }",
    );
}

#[test]
fn values_of_capabilities_stay_as_they_are_written() {
    let text = r#"{"grants": [{"src": ["*"], "dst": ["*"], "app": {"example.com/cap/a": [
        {"n": 1e400, /* comments go */ "s": "\u0022\n", "list": [true, null, {}],},
    ]}}]}"#;
    let subject = Subject {
        id: NodeId(1),
        user: "alice@".to_owned(),
        tags: Vec::new(),
        addresses: vec!["100.64.0.1".parse().unwrap()],
        routes: Vec::new(),
        exit: false,
    };
    let filter = Policy::parse(text).unwrap().compile(std::slice::from_ref(&subject)).filter(&subject);
    let values = &filter[0].cap_grant[0].cap_map.0["example.com/cap/a"];
    assert_eq!(values[0].get(), r#"{"n":1e400,"s":"\"\n","list":[true,null,{}]}"#);
}

#[test]
fn broken_hujson_is_an_error_with_its_line() {
    let error = Policy::parse("{\n  \"acls\": [\n}").unwrap_err();
    assert!((2..=3).contains(&error.line), "{error}");
    assert!(error.reason.starts_with("not valid HuJSON"), "{error}");
    for text in ["{'acls': []}", "{acls: []}", "[]", "{\"acls\": [] \"groups\": {}}", "{\"acls\": {}}"] {
        assert!(Policy::parse(text).is_err(), "{text}");
    }
}

#[test]
fn tags_belong_to_their_owners() {
    let policy = Policy::parse(
        r#"{"groups": {"group:ops": ["bob@"]},
            "tagOwners": {"tag:gw": ["alice@example.com", "group:ops"], "tag:none": []}}"#,
    )
    .unwrap();
    assert!(policy.may_tag("alice@example.com", "tag:gw") && policy.may_tag("bob", "tag:gw"));
    assert!(
        !policy.may_tag("carol@example.com", "tag:gw") && !policy.may_tag("alice@example.com", "tag:none")
    );
    assert!(!Policy::allow_all().may_tag("alice@example.com", "tag:gw"));
}

#[test]
fn approvers_cover_what_lies_in_their_prefix() {
    let policy = Policy::parse(
        r#"{"tagOwners": {"tag:gw": []},
            "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:gw"]}, "exitNode": ["alice@"]}}"#,
    )
    .unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let gateway = ["tag:gw".to_owned()];
    assert!(policy.approves("", &gateway, net("10.33.0.0/16")));
    assert!(!policy.approves("", &gateway, net("192.168.0.0/16")));
    assert!(!policy.approves("", &gateway, net("0.0.0.0/0")));
    assert!(policy.approves("alice", &[], net("::/0")) && !policy.approves("alice", &gateway, net("::/0")));
}
