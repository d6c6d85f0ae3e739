//! Fuzzes a map response, from any server.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(map) = wire::control::MapResponse::decode(data) {
        let again = serde_json::to_vec(&map).expect("what was decoded can be encoded");
        wire::control::MapResponse::decode(&again).expect("and decoded again");
    }
});
