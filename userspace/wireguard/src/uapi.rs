//! The UAPI socket: a thread a connection, requests answered in order, each ended by an empty line.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::{EINVAL, EIO};
use zeroize::Zeroizing;

use crate::Error;
use crate::device::Device;
use crate::request::{Request, describe};

/// A client that stops in the middle of a request is let go.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where `wg` and others look for it.
const FOLDER: &str = "/var/run/wireguard";

/// The socket file of a device.
pub(crate) fn path(device: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{device}.sock"))
}

/// Whether a process answers on the socket of that name.
pub(crate) fn answers(device: &str) -> bool {
    UnixStream::connect(path(device)).is_ok()
}

/// A listening socket and the number of its file: another file of that name is another device's.
pub(crate) struct Server {
    listener: UnixListener,
    pub(crate) path: PathBuf,
    pub(crate) inode: u64,
}

impl Server {
    /// Listens on the device's socket, for root only. A file left by a dead process is replaced.
    pub(crate) fn bind(device: &str) -> Result<Self, Error> {
        let path = path(device);
        let failed = |action, path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Io { action, path, source }
        };
        fs::create_dir_all(FOLDER).map_err(failed("create", Path::new(FOLDER)))?;
        fs::set_permissions(FOLDER, Permissions::from_mode(0o700))
            .map_err(failed("protect", Path::new(FOLDER)))?;
        if answers(device) {
            return Err(Error::Elsewhere(device.into()));
        }
        // Nobody answers: what is there is a leftover, or nothing.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed("listen on", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("protect", &path))?;
        let inode = fs::metadata(&path).map_err(failed("look at", &path))?.ino();
        Ok(Self { listener, path, inode })
    }

    /// Serves clients for the rest of the process's life.
    pub(crate) fn run(&self, device: &Arc<Device>) {
        for stream in self.listener.incoming().flatten() {
            let device = Arc::clone(device);
            let serve = move || {
                if let Err(error) = serve(&device, &stream) {
                    tracing::debug!(%error, "a UAPI client left");
                }
            };
            if let Err(error) = std::thread::Builder::new().name("uapi-client".into()).spawn(serve) {
                tracing::warn!(%error, "cannot serve a UAPI client");
            }
        }
    }
}

fn serve(device: &Device, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut operation = String::new();
        if reader.read_line(&mut operation)? == 0 {
            return Ok(());
        }
        let mut text = Zeroizing::new(String::new());
        while reader.read_line(&mut text)? > 1 {}
        let mut stream = stream;
        stream.write_all(answer(device, operation.trim_end(), text.trim_end()).as_bytes())?;
    }
}

/// Errors are counted below zero, as wireguard-go counts them and `wg` expects them.
fn answer(device: &Device, operation: &str, text: &str) -> Zeroizing<String> {
    let (mut answer, errno) = match operation {
        "get=1" => (describe(&device.read()), 0),
        "set=1" => (Zeroizing::default(), set(device, text)),
        _ => (Zeroizing::default(), EINVAL),
    };
    answer.push_str(&format!("errno={}\n\n", -errno));
    answer
}

fn set(device: &Device, text: &str) -> i32 {
    let Some(request) = Request::parse(text) else { return EINVAL };
    match device.apply(request) {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!(%error, "a UAPI request was refused");
            error.raw_os_error().unwrap_or(EIO)
        }
    }
}
