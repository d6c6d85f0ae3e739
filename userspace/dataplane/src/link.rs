//! Detaching a pinned link at once: the one link call that aya has not.
//!
//! Removing the pin alone detaches too, but only when the kernel gets around to freeing the link; until then packets still
//! run through it.
#![expect(unsafe_code, reason = "the bpf system call")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `enum bpf_cmd` of `linux/bpf.h`.
const BPF_OBJ_GET: i32 = 7;
const BPF_LINK_DETACH: i32 = 34;

/// Detaches the link pinned at `path`. The pin stays, as a link without a device.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    #[repr(C)]
    struct LinkDetach {
        link_fd: i32,
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 })?;
    // SAFETY: the kernel just opened it for us, and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    bpf(BPF_LINK_DETACH, &LinkDetach { link_fd: link.as_raw_fd() }).map(drop)
}

/// `T` is the start of `union bpf_attr` for the command.
fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live value; a pointer in it (the path) lives in the caller.
    let result = unsafe {
        nix::libc::syscall(nix::libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
