//! The messages against Go's own encoding, against what other clients send, and against damage.
//!
//! `testdata/tailcfg.txt` was written by Go's `encoding/json` from tailscale's `tailcfg` (1.103-dev): for each struct its
//! name, its zero value, and a value with every field set by reflection.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use types::{NodeId, RegionId};

use super::*;

const GOLDEN: &str = include_str!("testdata/tailcfg.txt");

/// Go's encodings of `name`: the zero value, the full value.
fn golden(name: &str) -> (&'static str, &'static str) {
    let mut lines = GOLDEN.lines();
    lines.find(|line| *line == name).unwrap_or_else(|| panic!("{name} is not in the golden file"));
    (lines.next().unwrap(), lines.next().unwrap())
}

/// Go escapes `&` for HTML; we need not.
fn unescaped(json: &str) -> String {
    json.replace(r"\u0026", "&")
}

/// Every field is read and written again: same names, same order, same text.
#[track_caller]
fn writes_as_go<T: Serialize + DeserializeOwned>(name: &str) {
    let full: T = serde_json::from_str(golden(name).1).unwrap();
    let ours = serde_json::to_string(&full).unwrap();
    assert_eq!(unescaped(&ours), unescaped(golden(name).1), "{name}");
}

#[track_caller]
fn zero_is_default<T: DeserializeOwned + Default + PartialEq + Debug>(name: &str) {
    assert_eq!(serde_json::from_str::<T>(golden(name).0).unwrap(), T::default(), "{name}");
}

macro_rules! golden {
    ($($test:ident: $ty:ty, $name:literal;)*) => {$(
        #[test]
        fn $test() {
            writes_as_go::<$ty>($name);
            zero_is_default::<$ty>($name);
        }
    )*};
}

golden! {
    node: Node, "Node";
    peer_change: PeerChange, "PeerChange";
    hostinfo: Hostinfo, "Hostinfo";
    user: User, "User";
    login: Login, "Login";
    user_profile: UserProfile, "UserProfile";
    register_response: RegisterResponse, "RegisterResponse";
    map_request: MapRequest, "MapRequest";
    map_response: MapResponse, "MapResponse";
    set_dns_request: SetDnsRequest, "SetDNSRequest";
    health_change_request: HealthChangeRequest, "HealthChangeRequest";
    ping_response: PingResponse, "PingResponse";
    public_key_response: OverTlsPublicKeyResponse, "OverTLSPublicKeyResponse";
    early_noise: EarlyNoise, "EarlyNoise";
    token_request: TokenRequest, "TokenRequest";
    token_response: TokenResponse, "TokenResponse";
    admit_request: DerpAdmitClientRequest, "DERPAdmitClientRequest";
    admit_response: DerpAdmitClientResponse, "DERPAdmitClientResponse";
}

#[test]
fn register_request() {
    writes_as_go::<RegisterRequest>("RegisterRequest");
    let zero: RegisterRequest = serde_json::from_str(golden("RegisterRequest").0).unwrap();
    assert_eq!(zero.nl_key, format!("nlpub:{}", "00".repeat(32)));
    assert_eq!(RegisterRequest { nl_key: String::new(), ..zero }, RegisterRequest::default());
}

#[test]
fn a_bad_peer_loses_that_peer() {
    let map = json!({
        "Peers": [{"ID": 1}, {"ID": 2, "Key": "nodekey:no"}, {"ID": "3"}, null, {"ID": 4}],
        "PeersChangedPatch": [{"NodeID": 5, "Endpoints": ["nowhere"]}, {"NodeID": 6, "Online": true}],
        "UserProfiles": [7],
    });
    let map = MapResponse::decode(map.to_string().as_bytes()).unwrap();
    assert_eq!(map.peers.iter().map(|peer| peer.id.0).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(map.peers_changed_patch[0].node_id, NodeId(6));
    let lost: Vec<_> = map.lost().collect();
    assert_eq!(lost.len(), 4);
    assert!(lost[0].starts_with("Peers, entry 1: "), "{lost:?}");
}

#[test]
fn nil_and_empty_are_told_apart_where_they_differ() {
    let decode = |text: &str| MapResponse::decode(text.as_bytes()).unwrap();
    assert_eq!(decode("{}").packet_filter, None);
    assert_eq!(decode(r#"{"PacketFilter":null}"#).packet_filter, None);
    let block_all = decode(r#"{"PacketFilter":[]}"#);
    assert_eq!(block_all.packet_filter, Some(vec![]));
    assert_eq!(serde_json::to_string(&block_all).unwrap(), r#"{"PacketFilter":[]}"#);

    let clear = r#"{"PacketFilters":{"*":null,"base":[]},"DisplayMessages":{"*":null}}"#;
    let map = decode(clear);
    assert_eq!(map.packet_filters["*"], None);
    assert_eq!(map.packet_filters["base"], Some(vec![]));
    assert_eq!(serde_json::to_string(&map).unwrap(), clear);

    let node = |text: &str| serde_json::from_str::<Node>(text).unwrap();
    let addresses = r#""Addresses":["100.64.0.1/32"]"#;
    assert_eq!(node(&format!("{{{addresses}}}")).allowed().len(), 1);
    assert_eq!(node(&format!(r#"{{{addresses},"AllowedIPs":[]}}"#)).allowed().len(), 0);
}

#[test]
fn the_tailscale_rs_client_is_understood() {
    let request = json!({
        "Version": 130, "NodeKey": format!("nodekey:{}", "01".repeat(32)), "Compress": null,
        "HostInfo": {
            "Os": "linux", "IpnVersion": "0.6.1", "RoutableIps": ["10.0.0.0/8"], "Hostname": "a",
            "NetInfo": {"PreferredDerp": 900, "WorkingIpv6": true},
        },
        "Endpoints": null, "EndpointTypes": [1, 99],
    });
    let request: MapRequest = serde_json::from_value(request).unwrap();
    let hostinfo = request.hostinfo.unwrap();
    assert_eq!((hostinfo.os.as_str(), hostinfo.routable_ips.len()), ("linux", 1));
    assert_eq!(hostinfo.net_info.unwrap().preferred_derp, RegionId(900));
    assert_eq!(request.endpoint_types, [EndpointType::LOCAL, EndpointType(99)]);
}

#[test]
fn home_regions_of_old_and_new_servers() {
    let node = |text: &str| serde_json::from_str::<Node>(text).unwrap().home_region();
    assert_eq!(node(r#"{"HomeDERP":5}"#), Some(RegionId(5)));
    assert_eq!(node(r#"{"DERP":"127.3.3.40:17"}"#), Some(RegionId(17)));
    assert_eq!(node(r#"{"DERP":"127.3.3.40:0"}"#), None);
    assert_eq!(node(r#"{"DERP":"somewhere"}"#), None);
}

#[test]
fn an_auth_key_is_never_shown() {
    let auth = RegisterAuth { auth_key: AuthKey("tskey-secret".to_owned()) };
    let request = RegisterRequest { auth: Some(auth), ..RegisterRequest::default() };
    assert!(!format!("{request:?}").contains("secret"));
}

/// The value at the `at`-th place, counted through all objects and lists.
fn nth_place<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().find_map(|field| nth_place(field, at)),
        Value::Array(items) => items.iter_mut().find_map(|item| nth_place(item, at)),
        _ => None,
    }
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ]
}

/// JSON pointers of all fields of all structs in `value`; the keys of maps are not fields.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, field) in object {
                let path = format!("{path}/{name}");
                fields(field, &path, found);
                if !name.contains('&') && name != "7" {
                    found.push(path);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                fields(item, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn any_field_may_be_null() {
    let map: Value = serde_json::from_str(golden("MapResponse").1).unwrap();
    let mut paths = Vec::new();
    fields(&map, "", &mut paths);
    assert!(paths.len() > 500);
    for path in paths {
        let mut map = map.clone();
        *map.pointer_mut(&path).unwrap() = Value::Null;
        let map = MapResponse::decode(map.to_string().as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(map.lost().next(), None, "{path}");
    }
}

proptest! {
    /// A map with something odd anywhere is an error or a map, and what is read is what is written again.
    #[test]
    fn damage_is_an_error_or_stable(damage in prop::collection::vec((0_usize..1200, junk()), 1..4)) {
        let mut map: Value = serde_json::from_str(golden("MapResponse").1).unwrap();
        for (mut at, junk) in damage {
            if let Some(place) = nth_place(&mut map, &mut at) {
                *place = junk;
            }
        }
        if let Ok(map) = MapResponse::decode(map.to_string().as_bytes()) {
            let again = MapResponse::decode(&serde_json::to_vec(&map).unwrap()).unwrap();
            prop_assert_eq!(again, map);
        }
    }

    #[test]
    fn any_bytes_are_an_error(bytes: Vec<u8>) {
        prop_assert!(MapResponse::decode(&bytes).is_err());
    }
}
