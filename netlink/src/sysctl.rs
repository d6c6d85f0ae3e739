//! Kernel switches under /proc/sys/net, of the calling thread's network namespace.
//!
//! Blocking, but the kernel answers from memory.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Reads a switch such as `net.ipv4.ip_forward`, without the final newline.
///
/// # Errors
/// `is_missing` when this kernel has no such switch.
pub fn read(name: &str) -> Result<String> {
    let text = std::fs::read_to_string(path(name)).map_err(|error| Error::os("read", named(name), &error))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a switch; writes nothing when it has that value already.
///
/// # Errors
/// `is_missing` when this kernel has no such switch, `is_denied` without the right to write.
pub fn write(name: &str, value: &str) -> Result<()> {
    if read(name)? == value {
        return Ok(());
    }
    std::fs::write(path(name), value).map_err(|error| Error::os("write", named(name), &error))
}

/// A dot in an interface's name is written as a slash, as `sysctl` does: `net.ipv4.conf.eth0/5.rp_filter`.
fn path(name: &str) -> PathBuf {
    let parts = name.split('.').map(|part| part.replace('/', "."));
    Path::new("/proc/sys").join(parts.collect::<Vec<_>>().join("/"))
}

fn named(name: &str) -> String {
    format!("kernel switch {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_a_slash_a_dot() {
        assert_eq!(path("net.ipv4.ip_forward"), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            path("net.ipv4.conf.eth0/5.rp_filter"),
            Path::new("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }

    #[test]
    fn an_unknown_switch_is_missing_by_name() {
        let error = read("net.ipv4.no_such_switch").unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().contains("net.ipv4.no_such_switch"), "{error}");
    }
}
