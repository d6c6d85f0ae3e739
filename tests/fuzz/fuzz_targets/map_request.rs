//! Fuzzes a map request, from any node.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<wire::control::MapRequest>(data);
});
