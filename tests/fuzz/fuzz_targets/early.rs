//! Fuzzes the server's early payload.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = wire::ts2021::parse_early(data);
    if let Some(header) = data.first_chunk() {
        let _ = wire::ts2021::early_len(*header);
    }
});
