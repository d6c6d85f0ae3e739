//! Where a node's programs live between its processes: one folder of the BPF file system a device and network namespace.
//!
//! `/sys/fs/bpf/underpass/v2/<device>@<netns inode>/` holds `map_<NAME>`, `program_<name>` and `link_<name>_<ifindex>`. The
//! namespace's inode is in the name because bpffs is shared by all network namespaces, interface names and indices are
//! not. Deliberately not here: what is in the pins.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use abi::Program;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::Error;

/// Where the kernel's BPF objects have names.
pub(crate) const BPF_FS: &str = "/sys/fs/bpf";

/// The folder of one node.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// The folder of `device` in the calling thread's network namespace; it need not exist.
    pub(crate) fn of(device: &str) -> Result<Self, Error> {
        let namespace = Path::new("/proc/thread-self/ns/net");
        let inode = std::fs::metadata(namespace).map_err(|error| pin_error(namespace, &error))?.ino();
        // bpffs refuses names with dots; an interface name has no colon.
        let device = device.replace('.', ":");
        let folder = format!("{BPF_FS}/underpass/{}/{device}@{inode}", abi::PIN_VERSION);
        Ok(Self { folder: folder.into() })
    }

    /// Mounts bpffs where it is not, and makes the folder.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        mount_bpffs()?;
        std::fs::create_dir_all(&self.folder).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Error::NotPermitted { doing: "making a folder for pins" },
            _ => pin_error(&self.folder, &error),
        })
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.folder.join(format!("map_{name}"))
    }

    pub(crate) fn program(&self, program: Program) -> PathBuf {
        self.folder.join(format!("program_{}", program.name()))
    }

    pub(crate) fn link(&self, program: Program, ifindex: u32) -> PathBuf {
        self.folder.join(format!("link_{}_{ifindex}", program.name()))
    }

    /// The pinned links: program, interface index, path.
    pub(crate) fn links(&self) -> Result<Vec<(Program, u32, PathBuf)>, Error> {
        let found = self.entries()?.into_iter().filter_map(|path| {
            let (name, ifindex) = path.file_name()?.to_str()?.strip_prefix("link_")?.rsplit_once('_')?;
            let program = Program::ALL.into_iter().find(|program| program.name() == name)?;
            Some((program, ifindex.parse().ok()?, path.clone()))
        });
        Ok(found.collect())
    }

    /// The folders that other versions of this program left for the same device.
    pub(crate) fn of_other_versions(&self) -> Result<Vec<Self>, Error> {
        let (Some(own), Some(name)) = (self.folder.parent(), self.folder.file_name()) else {
            return Ok(Vec::new());
        };
        let root = own.parent().unwrap_or(own);
        let versions = std::fs::read_dir(root).map_err(|error| pin_error(root, &error))?;
        let others = versions.filter_map(Result::ok).map(|version| version.path()).filter(|path| path != own);
        let folders = others.map(|version| version.join(name)).filter(|folder| folder.is_dir());
        Ok(folders.map(|folder| Self { folder }).collect())
    }

    /// Removes every pin and the folder; what nobody else holds is then detached and freed by the kernel.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for path in self.entries()? {
            remove(&path)?;
        }
        match std::fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(pin_error(&self.folder, &error)),
            _ => Ok(()),
        }
    }

    /// Whether nothing is pinned.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.entries()?.is_empty())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, Error> {
        match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()).map_err(|error| pin_error(&self.folder, &error)))
                .collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(pin_error(&self.folder, &error)),
        }
    }
}

/// Removes one pin; fine if it is gone.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(pin_error(path, &error)),
        _ => Ok(()),
    }
}

/// Puts a pin made by `make` in the place of `path` at once: there is no moment without one.
pub(crate) fn replace(path: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), Error> {
    let mut fresh = OsString::from(path);
    fresh.push("_new");
    let fresh = PathBuf::from(fresh);
    remove(&fresh)?;
    make(&fresh).map_err(|cause| Error::Pin { path: fresh.clone(), cause })?;
    std::fs::rename(&fresh, path).map_err(|error| pin_error(path, &error))
}

pub(crate) fn pin_error(path: &Path, error: &std::io::Error) -> Error {
    Error::Pin { path: path.to_owned(), cause: error.to_string() }
}

fn mount_bpffs() -> Result<(), Error> {
    let is_mounted = || statfs(BPF_FS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if is_mounted() {
        return Ok(());
    }
    // Two nodes that start at once must not mount twice: the second would hide the pins of the first. The lock is on the
    // folder below the mount; whoever waited for it looks again.
    let lock = std::fs::File::open(BPF_FS).map_err(Error::NoBpfFs)?;
    lock.lock().map_err(Error::NoBpfFs)?;
    if is_mounted() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("bpf"), BPF_FS, Some("bpf"), flags, Some("mode=0700")) {
        Ok(()) => Ok(()),
        Err(nix::Error::EPERM) => Err(Error::NotPermitted { doing: "mounting the BPF file system" }),
        Err(errno) => Err(Error::NoBpfFs(errno.into())),
    }
}
