//! The overlay device: finds the one of the last run, or makes one, with the kernel's WireGuard or the embedded one.
//!
//! A device is ours when it has our key, or no key yet, or carries our alias; then it is adopted with its peers and their
//! endpoints as they are. The embedded WireGuard is a process in a session of its own, started from the command line the
//! binary gave us: it outlives the daemon and is ended by deleting its device. Deliberately not here: peers and addresses.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use netlink::wireguard::{Backend, DeviceChange, PrivateKey, PublicKey, Wireguard};
use netlink::{Handle, LinkChange};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use types::{NodePrivate, NodePublic};

use crate::sockets::BYPASS_MARK;
use crate::{Config, Error, WireguardMode};

/// What `ip link` shows beside our device, and how a later run knows it.
const ALIAS: &str = "underpass";
/// How long an embedded WireGuard may take to start or to end; it takes a few milliseconds.
const EMBEDDED_START: Duration = Duration::from_secs(5);
/// What it says on its standard output when its socket answers; anything else is why it cannot run.
const READY: &str = "ready";

/// What the device shall be.
#[derive(Clone)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// Who shall run it.
    pub(crate) mode: WireguardMode,
    /// Its identity.
    pub(crate) key: NodePrivate,
    /// Its UDP port, not 0.
    pub(crate) port: u16,
    /// The command that runs an embedded WireGuard; the name is appended.
    pub(crate) embedded_command: Vec<OsString>,
    /// Where an embedded WireGuard writes what it has to say.
    pub(crate) embedded_log: PathBuf,
}

impl Spec {
    /// What follows from the configuration, for this key and port.
    pub(crate) fn new(config: &Config, key: NodePrivate, port: u16) -> Self {
        Self {
            name: config.device.clone(),
            mode: config.wireguard,
            key,
            port,
            embedded_command: config.embedded_command.clone(),
            embedded_log: config.state_dir.join("wireguard.log"),
        }
    }

    /// What peers know the device by.
    pub(crate) fn public_key(&self) -> NodePublic {
        self.key.public()
    }
}

/// The device that is already there, if it is ours.
///
/// # Errors
/// [`Error::DeviceTaken`] when the name belongs to somebody else.
pub(crate) async fn find(handle: &Handle, spec: &Spec) -> Result<Option<Wireguard>, Error> {
    let taken = |detail: String| Error::DeviceTaken { device: spec.name.clone(), detail };
    let link =
        handle.link(&spec.name).await.map_err(|error| Error::system("looking for the device", error))?;
    let Some(link) = link else { return Ok(None) };
    let wireguard = match Wireguard::open(handle, &spec.name).await {
        Ok(wireguard) => wireguard,
        Err(netlink::Error::NotWireguard(_)) => return Err(taken(format!("it is of kind {:?}", link.kind))),
        Err(error) => return Err(Error::system("opening the device", error)),
    };
    let device = wireguard.device().await.map_err(|error| Error::system("reading the device", error))?;
    let ours = PublicKey(*spec.key.public().as_bytes());
    let is_ours = device.public_key.is_none_or(|key| key == ours) || link.alias.as_deref() == Some(ALIAS);
    if is_ours { Ok(Some(wireguard)) } else { Err(taken("it has another private key".into())) }
}

/// Finds or makes the device and gives it key, port and mark. It is down when it is new; an adopted one stays as it is.
///
/// # Errors
/// When the name or the port is taken, or there is no WireGuard of the wanted kind.
pub(crate) async fn find_or_make(handle: &Handle, spec: &Spec) -> Result<Wireguard, Error> {
    let wireguard = match find(handle, spec).await? {
        Some(wireguard) => wireguard,
        None => make(handle, spec).await?,
    };
    let device = wireguard.device().await.map_err(|error| Error::system("reading the device", error))?;
    let change = DeviceChange {
        private_key: (device.public_key != Some(PublicKey(*spec.key.public().as_bytes())))
            .then(|| PrivateKey(*spec.key.secret_bytes())),
        listen_port: (device.listen_port != spec.port).then_some(spec.port),
        fwmark: (device.fwmark != BYPASS_MARK).then_some(BYPASS_MARK),
    };
    wireguard.configure(&change).await.map_err(|error| match error.is_taken() {
        true => port_in_use(spec.port, &error),
        false => Error::system("configuring the device", error),
    })?;
    Ok(wireguard)
}

/// Takes the device away; an embedded WireGuard ends with it.
///
/// # Errors
/// When the kernel refuses; a device that is gone already is fine.
pub(crate) async fn remove(handle: &Handle, name: &str) -> netlink::Result<()> {
    match handle.delete_link(name).await {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    // The process removes its socket as it ends; a successor must not meet it.
    let socket = Path::new("/var/run/wireguard").join(format!("{name}.sock"));
    let gone = async {
        while socket.exists() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    _ = timeout(EMBEDDED_START, gone).await;
    Ok(())
}

/// The word for `status`.
pub(crate) fn backend_name(wireguard: &Wireguard) -> &'static str {
    match wireguard.backend() {
        Backend::Kernel => "kernel",
        Backend::Userspace(_) => "embedded",
    }
}

/// Whether nobody else has UDP port `port`: tried before a device is made, because a kernel WireGuard would tell only when
/// it is brought up.
///
/// # Errors
/// [`Error::InUse`].
pub(crate) fn check_port(port: u16) -> Result<(), Error> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop).map_err(|error| port_in_use(port, &error))
}

/// Somebody else has the port.
pub(crate) fn port_in_use(port: u16, detail: &dyn std::fmt::Display) -> Error {
    Error::InUse { what: format!("UDP port {port}"), detail: detail.to_string(), flag: "--port" }
}

async fn make(handle: &Handle, spec: &Spec) -> Result<Wireguard, Error> {
    check_port(spec.port)?;
    let made = match spec.mode {
        WireguardMode::Embedded => None,
        WireguardMode::Kernel | WireguardMode::Auto => match handle.create_wireguard(&spec.name).await {
            Ok(_) => Some(Wireguard::open(handle, &spec.name).await),
            Err(netlink::Error::NoKernelWireguard(_)) if spec.mode == WireguardMode::Auto => None,
            Err(netlink::Error::NoKernelWireguard(_)) => {
                return Err(Error::Kernel {
                    what: "it has no WireGuard".into(),
                    remedy: "load the module with `modprobe wireguard`, or use --wireguard embedded".into(),
                });
            }
            Err(error) => return Err(Error::system("making the device", error)),
        },
    };
    let wireguard = match made {
        Some(opened) => opened.map_err(|error| Error::system("opening the device", error))?,
        None => start_embedded(handle, spec).await?,
    };
    let alias = LinkChange { alias: Some(ALIAS.into()), ..LinkChange::default() };
    handle.set_link(&spec.name, &alias).await.map_err(|error| Error::system("naming the device", error))?;
    Ok(wireguard)
}

async fn start_embedded(handle: &Handle, spec: &Spec) -> Result<Wireguard, Error> {
    let said =
        timeout(EMBEDDED_START, run_embedded(spec)).await.unwrap_or_else(|_| Ok("it does not answer".into()));
    match said.map_err(|error| Error::system("starting the embedded WireGuard", error))?.trim() {
        READY => Wireguard::open(handle, &spec.name)
            .await
            .map_err(|error| Error::system("opening the embedded WireGuard", error)),
        said => {
            let said = if said.is_empty() { "it ended without a word" } else { said };
            let remedy = "it needs root and /dev/net/tun (`modprobe tun`)".to_owned();
            Err(Error::Kernel { what: format!("the embedded WireGuard did not start: {said}"), remedy })
        }
    }
}

/// Starts the process and returns its first line. It leaves our session by itself and is not ended with us.
async fn run_embedded(spec: &Spec) -> std::io::Result<String> {
    let Some((program, arguments)) = spec.embedded_command.split_first() else {
        return Err(std::io::Error::other("this program brings no embedded WireGuard"));
    };
    let log = OpenOptions::new().create(true).append(true).open(&spec.embedded_log)?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(&spec.name)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    Ok(line)
}
