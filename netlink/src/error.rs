//! The one error of this crate: what was tried, on which object, and what the kernel answered.
//!
//! Callers branch on the few questions below (`is_missing`, `is_taken`, `is_denied`), never on text.

use nix::errno::Errno;

/// What every call here returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel (or a WireGuard process) refused; `detail` is its extended-ack text, empty where it gave none.
    #[error("cannot {action} {object}: {}{}{detail}", errno.desc(), if detail.is_empty() { "" } else { ": " })]
    Refused {
        /// A verb: "add", "remove", "list".
        action: &'static str,
        /// The object in `ip`'s words: "route 10.0.0.0/8 in table 52".
        object: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own explanation.
        detail: String,
    },
    /// This kernel has no WireGuard: use the embedded one, or load the module.
    #[error(
        "cannot create WireGuard device {0}: this kernel has no WireGuard \
         (try `modprobe wireguard`, or use the embedded WireGuard)"
    )]
    NoKernelWireguard(String),
    /// A link of that name exists and is no WireGuard device, or nothing of that name exists.
    #[error(
        "{0} is not a WireGuard device: no kernel WireGuard link and no UAPI socket answers by that name"
    )]
    NotWireguard(String),
    /// The `nft` binary is not installed.
    #[error("cannot find the `nft` command: install the nftables package")]
    NoNft,
    /// `nft` ran and refused the ruleset.
    #[error("nft refused table {table}: {message}")]
    Nft {
        /// Family and name.
        table: String,
        /// Its standard error, with line numbers of the given text.
        message: String,
    },
    /// The other side sent something that cannot be understood.
    #[error("cannot {action} {object}: malformed answer: {detail}")]
    Malformed {
        /// A verb.
        action: &'static str,
        /// The object in `ip`'s words.
        object: String,
        /// What was wrong with it.
        detail: String,
    },
    /// The netlink connection is gone (its runtime ended).
    #[error("cannot {action} {object}: the netlink connection is closed")]
    Closed {
        /// A verb.
        action: &'static str,
        /// The object in `ip`'s words.
        object: String,
    },
}

impl Error {
    /// From an operating-system error of a socket or file.
    pub(crate) fn os(action: &'static str, object: impl Into<String>, error: &std::io::Error) -> Self {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
        let detail = if error.raw_os_error().is_some() { String::new() } else { error.to_string() };
        Self::Refused { action, object: object.into(), errno, detail }
    }

    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// The object is not there: removing it again is done already.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO)
        )
    }

    /// The object is there already, or its name or port belongs to another.
    pub fn is_taken(&self) -> bool {
        matches!(self.errno(), Some(Errno::EEXIST | Errno::EADDRINUSE))
    }

    /// The caller lacks CAP_NET_ADMIN.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_action_object_and_the_kernels_words() {
        let error = Error::Refused {
            action: "add",
            object: "route 10.0.0.0/8 in table 52".into(),
            errno: Errno::ENETUNREACH,
            detail: "Nexthop has invalid gateway".into(),
        };
        assert_eq!(
            error.to_string(),
            "cannot add route 10.0.0.0/8 in table 52: Network is unreachable: Nexthop has invalid gateway"
        );
        let bare = Error::os("read", "/proc/x", &std::io::Error::from_raw_os_error(2));
        assert_eq!(bare.to_string(), "cannot read /proc/x: No such file or directory");
        assert!(bare.is_missing() && !bare.is_taken() && !bare.is_denied());
    }
}
