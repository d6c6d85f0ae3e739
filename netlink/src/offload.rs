//! Offloads of a link: what the stack leaves to a device.
//!
//! By the old ioctl, which every kernel has. Blocking, but the kernel answers at once.
#![expect(unsafe_code, reason = "the ethtool call has no safe wrapper")]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::libc::{self, c_char};

use crate::{Error, Result};

/// `linux/sockios.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `linux/ethtool.h`: scatter-gather, TCP segmentation, generic segmentation, checksums.
const SWITCHES: [u32; 4] = [0x19, 0x1f, 0x24, 0x17];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` as this call uses it.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    value: *mut Value,
    rest: [u8; 16],
}

/// Switches checksums and segmentation off that the link's device would do for what it sends, so that the stack does them.
/// In the calling thread's network namespace.
///
/// # Errors
/// `is_missing` when there is no such link.
pub fn switch_off(link: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::os("switch off", format!("offloads of link {link}"), &error);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    for command in SWITCHES {
        match call(&socket, link, command) {
            Ok(_) => {}
            // The device has no such switch: what counts is that it does not do it. Reading is the number before writing.
            Err(_) if call(&socket, link, command - 1).is_ok_and(|data| data == 0) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// One call; it writes zero or reads.
fn call(socket: &UdpSocket, link: &str, command: u32) -> std::io::Result<u32> {
    let mut value = Value { command, data: 0 };
    let mut request = Request { name: [0; libc::IFNAMSIZ], value: &raw mut value, rest: [0; 16] };
    for (place, byte) in request.name.iter_mut().zip(link.bytes().take(libc::IFNAMSIZ - 1)) {
        *place = byte.cast_signed() as c_char;
    }
    // SAFETY: the request and the value it points to live until the call returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(value.data)
}
