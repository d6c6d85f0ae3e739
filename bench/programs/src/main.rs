//! The kernel half of the bench's rig: a source of frames, sinks that count them, and floors, the least that a program
//! could do to forward or to answer.
//!
//! Loaded for one measurement and gone with it; nothing is pinned. Deliberately not here: what is measured, and every
//! figure (`bench/src/rig`).
#![no_std]
#![no_main]

mod floor;
mod generate;
mod layout;
mod sink;

/// The programs are dual-licensed for the helpers that only GPL programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: the verifier refuses an object that could panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
