//! `underpass wireguard`: the embedded WireGuard. Its work is `wireguard::run`; here are its flags.

use clap::Args;
use wireguard::Options;

/// `underpass wireguard`
#[derive(Args)]
#[command(
    long_about = "Run the embedded WireGuard: a TUN device, and the standard UAPI socket that `wg` speaks.\n\nThe node \
starts it by itself where the kernel has no WireGuard. It leaves its parent's session and outlives it; deleting the \
device or the socket file ends it. It prints one line: \"ready\", or why it cannot start.",
    after_help = crate::exit::HELP
)]
pub(crate) struct Wireguard {
    /// Name of the TUN device to make, and of the UAPI socket.
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Bytes of the largest packet.
    #[arg(long, value_name = "BYTES", default_value_t = 1280)]
    mtu: u16,
    /// Stay in this session, so that Ctrl-C ends it.
    #[arg(long)]
    foreground: bool,
}

impl Wireguard {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let options = Options { device: self.device, mtu: self.mtu, foreground: self.foreground };
        Ok(wireguard::run(&options)?)
    }
}
