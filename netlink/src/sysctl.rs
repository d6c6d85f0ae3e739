//! Kernel switches under /proc/sys/net, of the calling thread's network namespace.

use crate::Result;

/// Reads a switch such as `net.ipv4.ip_forward`, without the final newline.
///
/// # Errors
/// `is_missing` when this kernel has no such switch.
pub fn read(name: &str) -> Result<String> {
        Err(crate::Error::NoNft)
    }

/// Writes a switch; writes nothing when it has that value already.
///
/// # Errors
/// `is_missing` when this kernel has no such switch, `is_denied` without the right to write.
pub fn write(name: &str, value: &str) -> Result<()> {
        Err(crate::Error::NoNft)
    }
