//! Starting a device as a process of its own, adopting one that runs, and ending it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

use crate::process::{READY, check_name};
use crate::{Error, uapi};

/// A process that has neither ended nor is gone after this long is stuck in the kernel.
const DEADLINE: Duration = Duration::from_secs(5);

/// How to start a process.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// The program; `None` is the running one. It gets the arguments `wireguard --device NAME`.
    pub program: Option<PathBuf>,
    /// More arguments after those.
    pub arguments: Vec<OsString>,
    /// Where its log goes, appended; `None` is nowhere.
    pub log: Option<PathBuf>,
}

/// Whether a process had to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// A new one runs.
    New,
    /// One ran already, with whatever configuration and sessions it has.
    Adopted,
}

/// Makes sure that a process runs `device` in the network namespace of the calling thread, and returns when its UAPI
/// socket answers. The process does not end with the caller. Blocks for some milliseconds.
///
/// # Errors
/// When the name is taken by another link or namespace, or the new process says why it cannot run.
pub fn spawn(device: &str, options: &SpawnOptions) -> Result<Started, Error> {
    check_name(device)?;
    match (uapi::answers(device), if_nametoindex(device).is_ok()) {
        (true, true) => return Ok(Started::Adopted),
        (true, false) => return Err(Error::Elsewhere(device.into())),
        (false, true) => return Err(Error::NameTaken(device.into())),
        (false, false) => {}
    }
    let failed = |action, path: String| move |source| Error::Io { action, path, source };
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(failed("find", "the running program".into()))?,
    };
    let log = match &options.log {
        Some(path) => Stdio::from(append(path).map_err(failed("open", path.display().to_string()))?),
        None => Stdio::null(),
    };
    let mut child = Command::new(&program)
        .args(["wireguard", "--device", device])
        .args(&options.arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed("run", program.display().to_string()))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Ends with the line, or with the process.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    // Somebody must collect its exit status, should it end before this process does.
    std::thread::spawn(move || child.wait());
    match line.trim() {
        READY => Ok(Started::New),
        "" => Err(Error::Start { device: device.into(), message: "it ended without a word".into() }),
        message => Err(Error::Start { device: device.into(), message: message.into() }),
    }
}

/// Ends the process of `device` and waits until the device is gone. Nothing to end is fine.
///
/// # Errors
/// When it does not end in time.
pub fn stop(device: &str) -> Result<(), Error> {
    check_name(device)?;
    if !uapi::answers(device) {
        return Ok(());
    }
    let path = uapi::path(device);
    std::fs::remove_file(&path).map_err(|source| Error::Io {
        action: "remove",
        path: path.display().to_string(),
        source,
    })?;
    let deadline = Instant::now() + DEADLINE;
    while if_nametoindex(device).is_ok() {
        if Instant::now() >= deadline {
            return Err(Error::Stuck(device.into()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn append(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
