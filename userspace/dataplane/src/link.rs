//! Links by the bpf system call, where aya has no call or not the one we want.
//!
//! Detaching at once: removing the pin alone detaches too, but only when the kernel gets around to freeing the link; until
//! then packets still run through it. Attaching XDP: where the kernel refuses a link, aya attaches by netlink instead, which
//! leaves nothing to pin and can take the place of somebody else's program.
#![expect(unsafe_code, reason = "the bpf system call")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `enum bpf_cmd` of `linux/bpf.h`.
const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;
const BPF_LINK_DETACH: i32 = 34;
/// `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
/// `linux/if_link.h`: native only.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The running program.
    pub(crate) program: u32,
    /// The device; 0 when it is gone.
    pub(crate) ifindex: u32,
}

/// Attaches an XDP program natively and pins the link at `path`. What another program holds stays as it is.
///
/// # Errors
/// The kernel's: EBUSY or EEXIST for another program, EOPNOTSUPP where the driver has no native XDP.
pub(crate) fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct LinkCreate {
        prog_fd: i32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let create = LinkCreate {
        prog_fd: program.as_raw_fd(),
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    let fd = bpf(BPF_LINK_CREATE, &create)?;
    // SAFETY: the kernel just opened it for us, and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = c_path(path)?;
    bpf(BPF_OBJ_PIN, &Object { pathname: name.as_ptr() as u64, bpf_fd: link.as_raw_fd(), file_flags: 0 })?;
    Ok(())
}

/// Moves the link pinned at `path` to another program of the same kind, in one step.
pub(crate) fn update(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct LinkUpdate {
        link_fd: i32,
        new_prog_fd: i32,
        flags: u32,
        old_prog_fd: i32,
    }
    let link = get(path)?;
    let update =
        LinkUpdate { link_fd: link.as_raw_fd(), new_prog_fd: program.as_raw_fd(), flags: 0, old_prog_fd: 0 };
    bpf(BPF_LINK_UPDATE, &update).map(drop)
}

/// What the link pinned at `path` holds: an XDP or TCX link.
pub(crate) fn held(path: &Path) -> io::Result<Held> {
    /// The beginning of `struct bpf_link_info`; of the union, what XDP and TCX begin with.
    #[repr(C)]
    #[derive(Default)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        prog_id: u32,
        padding: u32,
        ifindex: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct GetInfo {
        bpf_fd: i32,
        info_len: u32,
        info: u64,
    }
    let link = get(path)?;
    let mut info = LinkInfo::default();
    let info_len = size_of::<LinkInfo>() as u32;
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &GetInfo { bpf_fd: link.as_raw_fd(), info_len, info: (&raw mut info).expose_provenance() as u64 },
    )?;
    Ok(Held { program: info.prog_id, ifindex: info.ifindex })
}

/// Detaches the link pinned at `path`. The pin stays, as a link without a device.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct LinkDetach {
        link_fd: i32,
    }
    let link = get(path)?;
    bpf(BPF_LINK_DETACH, &LinkDetach { link_fd: link.as_raw_fd() }).map(drop)
}

#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: i32,
    file_flags: u32,
}

fn get(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let fd = bpf(BPF_OBJ_GET, &Object { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 })?;
    // SAFETY: the kernel just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// `T` is the start of `union bpf_attr` for the command.
fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live value; what a pointer in it leads to (a path, room for an
    // answer of the length given) lives in the caller.
    let result = unsafe {
        nix::libc::syscall(nix::libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
