//! Fuzzes DISCO: the envelope's header and every message in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = wire::disco::looks_like_disco(data);
    let _ = wire::disco::sender(data);
    if let Ok(message) = wire::disco::Message::decode(data) {
        assert_eq!(wire::disco::Message::decode(&message.encode()).as_ref(), Ok(&message));
    }
});
