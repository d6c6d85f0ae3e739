//! What systemd hears of the daemon (`sd_notify(3)`): that it is ready, lives, and ends. Without systemd, nothing.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The supervisor's socket, if there is a supervisor.
pub(crate) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub(crate) fn from_env() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| for_us && *usec > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// How often [`Self::alive`] is to be said: twice as often as the supervisor waits.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// The socket answers and the kernel is as it was left.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The event loop turns.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::debug!(%error, state, "systemd is not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_at_the_supervisors_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let systemd = Systemd {
            socket: Some((UnixDatagram::unbound().unwrap(), address)),
            watchdog: Some(Duration::from_secs(10)),
        };
        systemd.ready();
        systemd.alive();
        let mut buffer = [0; 64];
        for expected in ["READY=1", "WATCHDOG=1"] {
            let length = supervisor.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
        assert_eq!(systemd.interval(), Some(Duration::from_secs(5)));
        Systemd { socket: None, watchdog: None }.stopping();
    }
}
