//! Hostinfo: what this machine says about itself to control (`hostinfo/hostinfo_linux.go`).
//!
//! The constant part is read once. Deliberately not here: what is measured (NetInfo comes from `node-core`), serial numbers
//! and other fingerprints of the machine.

use std::fs;

use types::MachinePublic;
use wire::control::{Hostinfo, NetInfo};
use wire::local::Prefs;

use crate::local_api::VERSION;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    hostname: String,
    kernel: String,
    distro: String,
    distro_version: String,
    distro_code_name: String,
    /// Names this machine in a stock server's logs, which insist on a name; nothing is ever logged there.
    log_id: String,
}

impl Machine {
    /// Reads it. What cannot be read stays empty.
    pub(crate) fn read(machine: MachinePublic) -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let names = nix::sys::utsname::uname().ok();
        let name = |field: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            names.as_ref().map(|names| field(names).to_string_lossy().into_owned()).unwrap_or_default()
        };
        Self {
            hostname: name(nix::sys::utsname::UtsName::nodename),
            kernel: name(nix::sys::utsname::UtsName::release),
            distro: release_field(&release, "ID"),
            distro_version: release_field(&release, "VERSION_ID"),
            distro_code_name: release_field(&release, "VERSION_CODENAME"),
            log_id: machine.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The name we ask for: the user's, or the machine's own first label.
    pub(crate) fn hostname(&self, prefs: &Prefs) -> String {
        let own = self.hostname.split('.').next().unwrap_or_default();
        if prefs.hostname.is_empty() { own.to_owned() } else { prefs.hostname.clone() }
    }

    /// The whole message.
    pub(crate) fn describe(&self, prefs: &Prefs, net_info: NetInfo) -> Hostinfo {
        Hostinfo {
            ipn_version: VERSION.to_owned(),
            backend_log_id: self.log_id.clone(),
            os: "linux".into(),
            os_version: self.kernel.clone(),
            distro: self.distro.clone(),
            distro_version: self.distro_version.clone(),
            distro_code_name: self.distro_code_name.clone(),
            app: "underpass".into(),
            hostname: self.hostname(prefs),
            shields_up: prefs.shields_up,
            no_logs_no_support: true,
            machine: std::env::consts::ARCH.into(),
            go_arch: go_arch(std::env::consts::ARCH).into(),
            routable_ips: prefs.advertise_routes.clone(),
            request_tags: prefs.advertise_tags.clone(),
            net_info: Some(net_info),
            peer_relay: prefs.relay_server_port.is_some(),
            userspace: Some(false),
            userspace_router: Some(false),
            ..Hostinfo::default()
        }
    }
}

/// Go's word for an architecture: consoles show it.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// One field of os-release(5), without its quotes.
fn release_field(text: &str, field: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(release_field(text, "ID"), "debian");
        assert_eq!(release_field(text, "VERSION_ID"), "12");
        assert_eq!(release_field(text, "VERSION_CODENAME"), "bookworm");
        assert_eq!(release_field(text, "BUILD_ID"), "");
    }

    #[test]
    fn the_users_hostname_wins_over_the_machines_first_label() {
        let machine =
            Machine { hostname: "gw.example.org".into(), ..Machine::read(MachinePublic::default()) };
        assert_eq!(machine.hostname(&Prefs::new()), "gw");
        let named = Prefs { hostname: "branch-7".into(), ..Prefs::new() };
        assert_eq!(machine.describe(&named, NetInfo::default()).hostname, "branch-7");
    }
}
