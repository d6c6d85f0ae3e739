//! The kernel programs: one ELF object, one file a program.
//!
//! Each entry point wraps its context as a `Frame`, asks `packet` for a reason, counts it and returns the verdict. What
//! a packet means is in `packet`, what the maps hold is in `abi`, what is attached where is in `../README.md`.
#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "the BPF target has the atomic add, but core's atomics do not offer it"
)]
#![feature(core_intrinsics, asm_experimental_arch)]

mod access;
mod detour;
mod disco;
mod egress;
mod fib;
mod flows;
mod forward;
mod from_tunnel;
mod gateway;
mod into_lan;
mod into_tunnel;
mod maps;
mod relay;
mod route;
mod shield;
mod socket;
mod steer;
mod stun;
mod tables;
mod to_tunnel;
mod underlay;
mod verdict;
mod wrap;

/// `bpf_fib_lookup` is for GPL programs only; this crate and what it links are dual-licensed for that.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: the verifier refuses an object that could panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
