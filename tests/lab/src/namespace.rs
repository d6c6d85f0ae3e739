//! Network namespaces and the links between them.
//!
//! A program enters only the *network* namespace: `ip netns exec` would also hide bpffs, where the node pins its programs.

#![expect(unsafe_code, reason = "a child enters its namespace between fork and exec")]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;

static LABS: AtomicU32 = AtomicU32::new(0);

/// One experiment: a tag that every name carries, and a folder for state, sockets and logs.
pub struct Lab {
    tag: String,
    folder: tempfile::TempDir,
}

impl Lab {
    /// A new, empty lab.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new() -> anyhow::Result<Self> {
        let count = LABS.fetch_add(1, Ordering::Relaxed);
        let tag = format!("up{:x}{count:x}", std::process::id());
        let folder = tempfile::Builder::new().prefix(&format!("underpass-lab-{tag}-")).tempdir()?;
        Ok(Self { tag, folder })
    }

    /// Where states, sockets and logs of this lab lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A namespace with only a loopback device.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, name: &str) -> anyhow::Result<Namespace> {
        Namespace::new(format!("{}-{name}", self.tag), name, self.folder())
    }

    /// Short enough for a device name, unique on this machine.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// One machine of the lab.
pub struct Namespace {
    /// As `ip netns` knows it.
    full: String,
    name: String,
    logs: PathBuf,
}

impl Namespace {
    fn new(full: String, name: &str, logs: &Path) -> anyhow::Result<Self> {
        ip(&format!("netns add {full}"))?;
        let namespace = Self { full, name: name.to_owned(), logs: logs.to_path_buf() };
        namespace.ip("link set lo up")?;
        // No autoconfiguration noise: addresses are those the lab gives.
        namespace.write_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        Ok(namespace)
    }

    /// The machine's name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's name for `ip netns` and `nsenter`.
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// The file that represents it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.full)
    }

    /// Runs `ip ARGUMENTS` in here.
    ///
    /// # Errors
    /// With what `ip` printed.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        ip(&format!("-n {} {arguments}", self.full))
    }

    /// A command that will run in here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let namespace = File::open(self.path()).with_context(|| format!("open {:?}", self.path()))?;
        let mut command = Command::new(program);
        // SAFETY: setns is a single system call on a descriptor that the closure owns; it allocates nothing and takes no lock,
        // so it may run between fork and exec.
        unsafe {
            command.pre_exec(move || setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(Into::into));
        }
        Ok(command)
    }

    /// Starts a program here, logging to `NAME-LABEL.log` in the lab's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, label: &str, command: &mut Command) -> anyhow::Result<Process> {
        Process::start(command, &self.logs.join(format!("{}-{label}.log", self.name)))
    }

    /// Runs a shell line in here to its end, whatever its status.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub fn shell(&self, line: &str) -> anyhow::Result<Output> {
        self.command("sh")?.args(["-c", line]).output().with_context(|| format!("{}: {line}", self.name))
    }

    /// Runs a shell line and returns its output.
    ///
    /// # Errors
    /// When its status is not 0, with what it printed.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        let output = self.shell(line)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "{}: {line}: {}\n{text}{}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// Writes one of the namespace's own settings, for instance `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write_sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.sh(&format!("[ ! -e /proc/sys/{name} ] || echo {value} > /proc/sys/{name}")).map(drop)
    }

    /// Runs `work` on a thread of its own inside the namespace: for sockets of the test itself.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let namespace = File::open(self.path())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            thread.join().map_err(|_| anyhow::anyhow!("the thread in {} panicked", self.name))?
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.full);
    }
}

/// Removes a namespace and what still runs in it: a program under test may have started one that outlives it, as the
/// embedded WireGuard does.
fn remove(full: &str) {
    let processes = ip(&format!("netns pids {full}")).unwrap_or_default();
    for id in processes.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = ip(&format!("netns del {full}"));
}

/// Removes everything that carries a lab's tag: for a lab that cannot be dropped.
pub fn sweep(tag: &str, folder: &Path) {
    let all = ip("netns list").unwrap_or_default();
    for full in all.lines().filter_map(|line| line.split_whitespace().next()) {
        if full.starts_with(&format!("{tag}-")) {
            remove(full);
        }
    }
    forget(tag);
    let _ = std::fs::remove_dir_all(folder);
}

/// Removes what devices whose name starts with `device` leave outside of their namespace: pins, and the socket of an embedded
/// WireGuard that was killed.
pub(crate) fn forget(device: &str) {
    let starts_so = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(device);
    for folder in
        entries("/sys/fs/bpf/underpass").flat_map(|version| entries(version.path())).filter(starts_so)
    {
        let _ = std::fs::remove_dir_all(folder.path());
    }
    for socket in entries("/var/run/wireguard").filter(starts_so) {
        let _ = std::fs::remove_file(socket.path());
    }
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok)
}

/// Runs `ip` with words separated by spaces.
pub(crate) fn ip(arguments: &str) -> anyhow::Result<String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("start ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
