//! Fuzzes a client's first message, as any stranger may send it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let server = types::MachinePrivate::from_random([7; 32]);
    let _ = wire::ts2021::ServerHandshake::accept(data, &server);
});
