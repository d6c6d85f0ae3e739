//! The process of one device: makes everything, says so on its standard output, and runs until there is nothing to run.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::device::Device;
use crate::socket::Sockets;
use crate::uapi::Server;
use crate::{Error, inbound, outbound, timers};

/// The line by which a started process says that its UAPI socket answers.
pub(crate) const READY: &str = "ready";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the TUN device to create, and of the UAPI socket.
    pub device: String,
    /// Bytes of the largest packet; Tailscale's 1280.
    pub mtu: u16,
    /// Stays in the caller's session, so that Ctrl-C ends it. Otherwise the process leaves it, to outlive its parent.
    pub foreground: bool,
}

impl Options {
    /// A detached device of MTU 1280.
    pub fn new(device: impl Into<String>) -> Self {
        Self { device: device.into(), mtu: 1280, foreground: false }
    }
}

/// Runs a device until its socket file or its TUN device is deleted. Prints one line: "ready", or why it cannot start.
///
/// # Errors
/// When the name is taken, or the device or its socket cannot be made.
pub fn run(options: &Options) -> Result<(), Error> {
    if !options.foreground {
        // Fails only for the leader of a group, which a shell's job is: then the shell decides about its life.
        let _ = nix::unistd::setsid();
    }
    let started = Running::start(options);
    let line = match &started {
        Ok(_) => READY.to_owned(),
        Err(error) => error.to_string(),
    };
    // The reader may be gone, or there may be none.
    let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    started?.wait(options);
    Ok(())
}

/// A device whose threads run.
struct Running {
    ended: std::sync::mpsc::Receiver<String>,
    server: Arc<Server>,
}

impl Running {
    fn start(options: &Options) -> Result<Self, Error> {
        check_name(&options.device)?;
        if nix::net::if_::if_nametoindex(options.device.as_str()).is_ok() {
            return Err(Error::NameTaken(options.device.clone()));
        }
        let server = Arc::new(Server::bind(&options.device)?);
        let tun = DeviceBuilder::new()
            .name(&options.device)
            .mtu(options.mtu)
            .offload(true)
            .enable(false)
            .build_sync();
        let tun = Arc::new(tun.map_err(|source| {
            let _ = std::fs::remove_file(&server.path);
            Error::Tun { device: options.device.clone(), source }
        })?);
        let (end, ended) = channel();
        let device = new_device(&tun, options.mtu)?;
        start_threads(&device, &tun, &server, options.mtu, &end)?;
        Ok(Self { ended, server })
    }

    fn wait(self, options: &Options) {
        let reason = self.ended.recv().unwrap_or_default();
        tracing::info!(device = options.device, reason, "the embedded WireGuard ends");
        // A later process of the same name may have put its own file there.
        if std::fs::metadata(&self.server.path).is_ok_and(|now| now.ino() == self.server.inode) {
            let _ = std::fs::remove_file(&self.server.path);
        }
    }
}

/// The tables, with threads started for every new pair of sockets.
fn new_device(tun: &Arc<SyncDevice>, mtu: u16) -> Result<Arc<Device>, Error> {
    let slot: Arc<OnceLock<std::sync::Weak<Device>>> = Arc::default();
    let (devices, tun) = (Arc::clone(&slot), Arc::clone(tun));
    let listen = move |sockets: Arc<Sockets>| {
        let Some(device) = devices.get().and_then(std::sync::Weak::upgrade) else { return };
        for v6 in [false, true] {
            let (device, sockets, tun) = (Arc::clone(&device), Arc::clone(&sockets), Arc::clone(&tun));
            let receive = move || {
                let socket = if v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) };
                if let Some(socket) = socket {
                    inbound::run(&device, &sockets, socket, &tun, mtu);
                }
            };
            if let Err(error) = thread(if v6 { "inbound6" } else { "inbound4" }, receive) {
                tracing::error!(%error, "cannot receive");
            }
        }
    };
    let failed = |source| Error::Io { action: "start", path: "the device".into(), source };
    let device = Arc::new(Device::new(Box::new(listen)).map_err(failed)?);
    let _ = slot.set(Arc::downgrade(&device));
    Ok(device)
}

fn start_threads(
    device: &Arc<Device>,
    tun: &Arc<SyncDevice>,
    server: &Arc<Server>,
    mtu: u16,
    end: &Sender<String>,
) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "start", path: "a thread".into(), source };
    let (sealing, source, gone) = (Arc::clone(device), Arc::clone(tun), end.clone());
    thread("outbound", move || {
        let error = outbound::run(&sealing, &source, mtu);
        // Who listened is gone only when the process ends anyway; so here and below.
        let _ = gone.send(format!("its TUN device is gone ({error})"));
    })
    .map_err(failed)?;
    let (timed, watched, gone) = (Arc::clone(device), Arc::clone(server), end.clone());
    thread("timers", move || {
        timers::run(&timed, &watched.path, watched.inode);
        let _ = gone.send("its socket file is gone".into());
    })
    .map_err(failed)?;
    let (driven, server) = (Arc::clone(device), Arc::clone(server));
    thread("uapi", move || server.run(&driven)).map_err(failed)
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

/// The kernel's rule for names of links, narrowed to what is safe in a path.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    let good = (1..=15).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != "..";
    if good { Ok(()) } else { Err(Error::Name(name.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(check_name("underpass0").is_ok());
        for name in ["", ".", "..", "a/b", "sixteen-letters-", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
