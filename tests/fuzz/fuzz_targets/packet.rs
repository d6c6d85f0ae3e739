//! Fuzzes what arrives on the underlay and from the tunnel.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let frame = packet::Bytes(data);
    let _ = packet::for_controller(&frame, 41641_u16.to_be_bytes());
    if let Ok(ip) = packet::Ip::parse(&frame) {
        let _ = packet::outbound(&ip, &frame);
        let _ = packet::classify(&frame, 0, data.len());
    }
});
