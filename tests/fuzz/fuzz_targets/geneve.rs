//! Fuzzes the Geneve header of relayed packets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = wire::geneve::Header::decode(data);
});
