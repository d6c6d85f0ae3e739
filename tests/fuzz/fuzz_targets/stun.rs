//! Fuzzes STUN requests and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = wire::stun::decode_request(data);
    let _ = wire::stun::decode_response(data);
});
