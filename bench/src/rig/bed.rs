//! Three machines in a row, and what they need to take frames that a program redirects.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context as _;
use lab::{Lab, Namespace};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::RELAY_CORE;

/// The machines. Devices: `a0` in `a`, `rig0` and `rig1` in `relay`, `b0` in `b`.
pub(crate) struct Bed {
    lab: Lab,
    pub(crate) a: Namespace,
    pub(crate) relay: Namespace,
    pub(crate) b: Namespace,
}

impl Bed {
    pub(crate) const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    pub(crate) const RELAY_TO_A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    pub(crate) const RELAY_TO_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    pub(crate) const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    pub(crate) const MAC_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 2];
    pub(crate) const MAC_RELAY_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];
    pub(crate) const MAC_RELAY_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];
    pub(crate) const MAC_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 2];

    pub(crate) fn build() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let [a, relay, b] = ["a", "relay", "b"].map(|name| lab.namespace(name));
        let bed = Self { a: a?, relay: relay?, b: b?, lab };
        for machine in [&bed.a, &bed.relay, &bed.b] {
            // No router solicitations or neighbour checks among the counted packets.
            machine.write_sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            machine.write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        link(
            &bed.relay,
            "rig0",
            (Self::MAC_RELAY_A, Self::RELAY_TO_A),
            &bed.a,
            "a0",
            (Self::MAC_A, Self::A),
        )?;
        link(
            &bed.relay,
            "rig1",
            (Self::MAC_RELAY_B, Self::RELAY_TO_B),
            &bed.b,
            "b0",
            (Self::MAC_B, Self::B),
        )?;
        bed.a.ip(&format!("route add default via {}", Self::RELAY_TO_A))?;
        bed.b.ip(&format!("route add default via {}", Self::RELAY_TO_B))?;
        bed.relay.write_sysctl("net/ipv4/ip_forward", "1")?;
        // A veth that takes redirected frames needs NAPI, and the relay's ingress GRO, as a real NIC has both.
        bed.relay.sh("ethtool -K rig0 gro on")?;
        bed.b.sh("ethtool -K b0 gro on")?;
        Ok(bed)
    }

    /// Where its programs may keep files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.lab.folder()
    }

    /// An address of the relay as seen from `a`.
    pub(crate) fn towards_a(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Self::RELAY_TO_A, port)
    }

    /// The same as seen from `b`.
    pub(crate) fn towards_b(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Self::RELAY_TO_B, port)
    }
}

/// A veth pair with permanent neighbours and one queue.
fn link(
    left: &Namespace,
    left_name: &str,
    (left_mac, left_ip): ([u8; 6], Ipv4Addr),
    right: &Namespace,
    right_name: &str,
    (right_mac, right_ip): ([u8; 6], Ipv4Addr),
) -> anyhow::Result<()> {
    let (left_mac, right_mac) = (text(left_mac), text(right_mac));
    left.ip(&format!(
        "link add {left_name} address {left_mac} numrxqueues 1 numtxqueues 1 type veth \
         peer name {right_name} address {right_mac} numrxqueues 1 numtxqueues 1 netns {}",
        right.full_name()
    ))?;
    for (machine, name, ip, peer, mac) in
        [(left, left_name, left_ip, right_ip, &right_mac), (right, right_name, right_ip, left_ip, &left_mac)]
    {
        machine.ip(&format!("addr add {ip}/24 dev {name}"))?;
        machine.ip(&format!("link set {name} up"))?;
        machine.ip(&format!("neigh replace {peer} lladdr {mac} dev {name} nud permanent"))?;
    }
    Ok(())
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// While it lives, what the relay receives from `a` is worked on by a kernel thread on the relay's core.
pub(crate) struct Threaded<'bed>(&'bed Bed);

impl<'bed> Threaded<'bed> {
    pub(crate) fn new(bed: &'bed Bed) -> anyhow::Result<Self> {
        let before = napi_threads();
        let threaded = Self(bed);
        threaded.switch("1")?;
        let thread = napi_threads().difference(&before).next().copied();
        let thread = thread.context("the kernel starts a NAPI thread for rig0")?;
        let mut core = CpuSet::new();
        core.set(RELAY_CORE)?;
        sched_setaffinity(Pid::from_raw(thread), &core)?;
        Ok(threaded)
    }

    /// Only a mount of sysfs made in the namespace shows its devices; `ip netns exec` makes one.
    fn switch(&self, value: &str) -> anyhow::Result<()> {
        let line = format!("echo {value} > /sys/class/net/rig0/threaded");
        let mut shell = std::process::Command::new("ip");
        shell.args(["netns", "exec", self.0.relay.full_name(), "sh", "-c", &line]);
        let output = shell.output().context("start ip")?;
        anyhow::ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Threaded<'_> {
    fn drop(&mut self) {
        // The device goes with the bed, whatever the kernel says here.
        let _ = self.switch("0");
    }
}

fn napi_threads() -> BTreeSet<i32> {
    kernel_threads(|name| name.starts_with("napi/rig0-"))
}

/// Threads of the kernel by name.
pub(super) fn kernel_threads(wanted: impl Fn(&str) -> bool) -> BTreeSet<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|id: &i32| {
            std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| wanted(&name))
        })
        .collect()
}
