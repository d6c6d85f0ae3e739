//! Fuzzes the length framing and compression of a map stream.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for compressed in [false, true] {
        let mut frames = wire::control::Frames::new(compressed, 1 << 20);
        for piece in data.chunks(11) {
            frames.push(piece);
            while let Ok(Some(_)) = frames.poll() {}
        }
    }
});
