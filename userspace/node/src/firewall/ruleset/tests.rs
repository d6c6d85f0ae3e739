//! Rules as `nft -j` prints them; whole rulesets of firewall programs are in the lab's tests.

use serde_json::json;

use super::*;

fn packet() -> Packet {
    Packet { device: "eth0".into(), ipv6: false, port: 41641 }
}

/// A table `inet fw` with a chain `in` of that policy, a chain `sub`, and these rules in `in`.
fn ruleset(policy: &str, rules: &[Value]) -> Value {
    let chain = json!({"chain": {"family": "inet", "table": "fw", "name": "in", "handle": 1, "type": "filter",
        "hook": "input", "prio": 0, "policy": policy}});
    let sub = json!({"rule": {"family": "inet", "table": "fw", "chain": "sub", "handle": 9,
        "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}},
            {"drop": null}]}});
    let rules = rules.iter().enumerate().map(|(index, expr)| {
        json!({"rule": {"family": "inet", "table": "fw", "chain": "in", "handle": 10 + index, "expr": expr}})
    });
    let all: Vec<Value> = [chain, sub].into_iter().chain(rules).collect();
    json!({ "nftables": all })
}

fn meets(policy: &str, rules: &[Value]) -> Option<Option<u64>> {
    blocked(&ruleset(policy, rules), &packet()).map(|blocked| blocked.handle)
}

fn matching(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn dport(right: Value) -> Value {
    matching(json!({"payload": {"protocol": "udp", "field": "dport"}}), right)
}

fn accept() -> Value {
    json!({"accept": null})
}

fn discard() -> Value {
    json!({"drop": null})
}

#[test]
fn the_policy_decides_where_no_rule_does() {
    assert_eq!(meets("accept", &[]), None);
    assert_eq!(meets("drop", &[]), Some(None));
    let lo = matching(json!({"meta": {"key": "iifname"}}), json!("lo"));
    let known =
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
    let ssh = matching(json!({"payload": {"protocol": "tcp", "field": "dport"}}), json!(22));
    let rules = [json!([lo, accept()]), json!([known, accept()]), json!([ssh, accept()])];
    assert_eq!(meets("drop", &rules), Some(None));
    assert_eq!(meets("drop", &[json!([dport(json!(41641)), {"counter": {}}, accept()])]), None);
}

#[test]
fn a_packet_of_somebody_new_has_no_history() {
    let status = matching(json!({"ct": {"key": "status"}}), json!("dnat"));
    assert_eq!(meets("drop", &[json!([status, accept()])]), Some(None));
    let mark = matching(json!({"ct": {"key": "mark"}}), json!(7));
    assert_eq!(meets("drop", &[json!([mark, accept()])]), None);
}

#[test]
fn a_rule_is_named_by_its_handle() {
    assert_eq!(meets("accept", &[json!([dport(json!(53)), discard()]), json!([discard()])]), Some(Some(11)));
    let reject = json!({"reject": {"type": "icmpx", "expr": "admin-prohibited"}});
    assert_eq!(meets("accept", &[json!([dport(json!({"range": [1000, 65535]})), reject])]), Some(Some(10)));
    let set = json!({"set": [{"range": [67, 68]}, 5353]});
    assert_eq!(meets("accept", &[json!([dport(set), discard()])]), None);
    let text = blocked(&ruleset("drop", &[]), &packet()).unwrap();
    assert_eq!(text.advice(41641), "nft insert rule inet fw in udp dport 41641 accept");
    assert!(text.to_string().contains("chain 'in' in table 'inet fw'"), "{text}");
}

#[test]
fn what_may_let_it_in_is_no_certain_drop() {
    let source = matching(
        json!({"payload": {"protocol": "ip", "field": "saddr"}}),
        json!({"prefix": {"addr": "10.0.0.0", "len": 8}}),
    );
    assert_eq!(meets("drop", &[json!([source, accept()])]), None);
    assert_eq!(meets("accept", &[json!([source, discard()])]), None);
    let limit = json!({"limit": {"rate": 5, "per": "second"}});
    assert_eq!(meets("drop", &[json!([limit, accept()])]), None);
    assert_eq!(meets("drop", &[json!([{"xt": {"type": "match", "name": "addrtype"}}, accept()])]), None);
}

#[test]
fn chains_are_followed_and_maps_looked_up() {
    let jump = json!({"jump": {"target": "sub"}});
    assert_eq!(meets("drop", &[json!([jump]), json!([accept()])]), None);
    let packet_to = |port| Packet { port, ..packet() };
    let rules = ruleset("accept", &[json!([jump])]);
    assert_eq!(
        blocked(&rules, &packet_to(53)).map(|blocked| (blocked.chain, blocked.handle)),
        Some(("sub".into(), Some(9)))
    );
    let vmap = |key: &str, entries: Value| json!([{"vmap": {"key": {"ct": {"key": key}}, "data": {"set": entries}}}]);
    let states = json!([["invalid", discard()], ["established", accept()]]);
    assert_eq!(meets("drop", &[vmap("state", states)]), Some(None));
    assert_eq!(meets("accept", &[vmap("state", json!([["new", discard()]]))]), Some(Some(10)));
    let looped = json!({"jump": {"target": "in"}});
    assert_eq!(meets("drop", &[json!([looped])]), Some(None), "a loop ends");
}

#[test]
fn the_other_family_and_nonsense_do_not_count() {
    let only_v6 = matching(json!({"meta": {"key": "nfproto"}}), json!("ipv6"));
    let rules = ruleset("accept", &[json!([only_v6, discard()])]);
    assert!(blocked(&rules, &packet()).is_none());
    assert!(blocked(&rules, &Packet { ipv6: true, ..packet() }).is_some());
    for nonsense in [json!(null), json!([]), json!({"nftables": [{"rule": 5}, 7, {"chain": {}}]})] {
        assert_eq!(blocked(&nonsense, &packet()), None);
    }
    assert_eq!(meets("drop", &[json!([7]), json!([{}]), json!([{"match": 3}, accept()])]), None);
}
