//! Reading many entries of a map by one system call, which aya has not.
#![expect(unsafe_code, reason = "the bpf system call")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::MapFd;

/// `enum bpf_cmd` of `linux/bpf.h`; for arrays since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: i32 = 24;

/// The first `count` values of an array.
pub(crate) fn read_array<T: Pod + Default>(map: &MapFd, count: u32) -> io::Result<Vec<T>> {
    /// The side of `union bpf_attr` that is called `batch`.
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: i32,
        elem_flags: u64,
        flags: u64,
    }
    let mut keys = vec![0_u32; count as usize];
    let mut values = vec![T::default(); count as usize];
    let mut next = 0_u32;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: (&raw mut next).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count,
        map_fd: map.as_fd().as_raw_fd(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes `count` keys of four bytes and values of the map's size, which `T` has, and one key more to
    // `next`; all of them live in this function. The values are `Pod`: any bytes are valid.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut batch,
            size_of::<Batch>() as u32,
        )
    };
    // "No entry" says that the array ended with this batch.
    if result < 0 && io::Error::last_os_error().kind() != io::ErrorKind::NotFound {
        return Err(io::Error::last_os_error());
    }
    values.truncate(batch.count as usize);
    Ok(values)
}
