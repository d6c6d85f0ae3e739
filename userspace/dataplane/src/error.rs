//! What can go wrong with programs and maps.

use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why a call failed; the text says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not use BPF.
    #[error("{doing}: not permitted; run as root (CAP_BPF and CAP_NET_ADMIN)")]
    NotPermitted {
        /// What was being done.
        doing: &'static str,
    },
    /// There is no BPF file system and it cannot be mounted.
    #[error("cannot mount the BPF file system on /sys/fs/bpf: {0}; mount it: mount -t bpf bpf /sys/fs/bpf")]
    NoBpfFs(std::io::Error),
    /// The kernel refused the programs.
    #[error(
        "the kernel does not load the eBPF programs: {0}; Linux 6.1 or newer with CONFIG_BPF_SYSCALL is needed"
    )]
    Load(String),
    /// Attaching, replacing or detaching failed.
    #[error("{program} on interface {ifindex}: {cause}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// Which interface.
        ifindex: u32,
        /// Why.
        cause: String,
    },
    /// A map refused.
    #[error("map {map}: {cause}")]
    Map {
        /// Which map.
        map: &'static str,
        /// Why.
        cause: MapError,
    },
    /// A pin cannot be made, read or removed.
    #[error("{}: {cause}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The filter does not fit; the one before stays in force.
    #[error(
        "the packet filter needs {have} {what}, the kernel tables hold {limit}; the previous filter stays in force"
    )]
    FilterTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much the filter needs, at least.
        have: usize,
        /// The limit.
        limit: usize,
    },
    /// The peers' addresses do not fit; the network as it was stays in force.
    #[error(
        "the peers have {have} address prefixes, the kernel tables hold {limit}; the previous network stays in force: \
         approve fewer routes"
    )]
    TooManyPrefixes {
        /// How many the peers have.
        have: usize,
        /// The limit.
        limit: usize,
    },
    /// Two sessions of the relay would be at one place of the kernel's table.
    #[error("relay session {vni} has the place of {other} in the kernel's table: it is relayed in userspace")]
    PlaceTaken {
        /// The VNI that was to be added.
        vni: u32,
        /// The VNI that is there.
        other: u32,
    },
    /// The kernel gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// A relayed peer, or one with a port of its own, that the tables cannot hold.
    #[error("detours of peers: {0}; those before stay in force")]
    BadDetour(String),
    /// The trace cannot be read.
    #[error("reading the trace: {0}")]
    Trace(String),
}

impl Error {
    pub(crate) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |cause| Self::Map { map, cause }
    }

    pub(crate) fn attach(program: abi::Program, ifindex: u32) -> impl Fn(String) -> Self {
        move |cause| Self::Attach { program: program.name(), ifindex, cause }
    }
}

/// An error and all its causes on one line: aya keeps the errno in the causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The errno behind a program error, if a system call failed.
pub(crate) fn errno(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(errno);
        }
        if let Some(errno) =
            error.downcast_ref::<aya::sys::SyscallError>().and_then(|call| call.io_error.raw_os_error())
        {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}
