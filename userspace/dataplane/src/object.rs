//! The eBPF object that is part of this binary.

use abi::Object;
use sha2::{Digest as _, Sha256};

/// The ELF file that the build script made.
pub(crate) fn bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(env!("UNDERPASS_EBPF_OBJECT"))
}

/// Which build it is: what is attached is replaced when it is another one.
pub(crate) fn identity() -> Object {
    Object { hash: Sha256::digest(bytes()).into() }
}
