//! Why the daemon could not start or had to stop: one variant for each thing a person can do about it.

use std::path::PathBuf;

/// An error of [`crate::run`]. The text says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root, or without the capabilities of root.
    #[error("the node needs root ({0}): run it with sudo, or give it CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF")]
    Privilege(String),
    /// The kernel lacks something.
    #[error("this kernel cannot run the node: {what}; {remedy}")]
    Kernel {
        /// What is missing.
        what: String,
        /// How to get it.
        remedy: String,
    },
    /// The device name belongs to something that is not our WireGuard.
    #[error(
        "device {device} exists and is not a WireGuard device of this node ({detail}): choose another name with --device, or remove it with `ip link del {device}`"
    )]
    DeviceTaken {
        /// The device's name.
        device: String,
        /// What it is instead.
        detail: String,
    },
    /// Somebody else has our UDP port or our socket.
    #[error("{what} is in use ({detail}): choose another with {flag}, or stop whoever uses it")]
    InUse {
        /// "UDP port 41641", "socket /run/...".
        what: String,
        /// What the kernel said.
        detail: String,
        /// The flag that chooses another.
        flag: &'static str,
    },
    /// The state file cannot be used; it is never replaced silently.
    #[error("state file {path}: {detail}", path = .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// The configuration file or a flag is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// A step on the kernel failed that has no better name.
    #[error("{step}: {source}")]
    System {
        /// What was being done, to what.
        step: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// A failed step with its cause.
    pub(crate) fn system(
        step: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::System { step: step.into(), source: source.into() }
    }

    /// The process's exit code; each kind has its own, so that scripts can tell them apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::System { .. } => 1,
            Self::Config(_) => 2,
            Self::Privilege(_) => 3,
            Self::Kernel { .. } => 4,
            Self::DeviceTaken { .. } => 5,
            Self::InUse { .. } => 6,
            Self::State { .. } => 7,
        }
    }
}
