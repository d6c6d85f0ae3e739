//! What time demands of a device: handshakes repeated, keep-alives, ended sessions forgotten; and the end of it all when
//! its socket file is gone.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use gotatun::packet::Packet;

use crate::device::Device;

/// WireGuard's timers are seconds; the kernel's own jitter on them is a third of one.
const TICK: Duration = Duration::from_millis(250);

/// Runs until `file` is no longer the file with this number.
pub(crate) fn run(device: &Device, file: &Path, inode: u64) {
    while file.metadata().is_ok_and(|now| now.ino() == inode) {
        tick(device);
        std::thread::sleep(TICK);
    }
}

fn tick(device: &Device) {
    let tables = device.read();
    let Some(sockets) = tables.sockets.as_deref().filter(|_| tables.identity.configured) else { return };
    for member in tables.peers.values() {
        let mut state = member.peer.lock();
        let (due, endpoint) = (state.tick(), state.endpoint);
        drop(state);
        if let (Some(message), Some(endpoint)) = (due, endpoint) {
            device.expect_answers(&message, &member.peer);
            sockets.send(&[Packet::from(message)], endpoint);
        }
    }
    device.forget_ended_sessions();
}
