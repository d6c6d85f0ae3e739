//! The veth pair on which relayed packets get their header.
//!
//! No program can complete a checksum that is left to the device, or cut a super-packet. The stack does both for a device
//! that cannot, so packets go through one: the near end has checksums and segmentation off, and `wrap` waits at the far end.
//! It has no addresses and no routes: only `egress` and `steer` send into it.

use netlink::{Handle, LinkChange, sysctl};

use crate::apply::Cause;
use crate::{Error, Program, Programs};

/// What `ip link` shows beside both ends.
const ALIAS: &str = "underpass: headers of relayed peers";
/// Longest packet of any underlay device.
const MTU: u32 = 65_535;

/// Makes the pair for the overlay device `device` where it is not, and attaches `wrap`.
///
/// # Errors
/// When the kernel refuses a device, or the program.
pub async fn ensure_wrap(handle: &Handle, programs: &mut Programs, device: &str) -> Result<(), Cause> {
    let [near, far] = names(device);
    if handle.link(&near).await?.is_none() {
        handle.create_veth(&near, &far).await?;
    }
    for name in [&near, &far] {
        // Without IPv6 on it the stack says nothing there by itself; a machine without IPv6 has no such switch.
        _ = sysctl::write(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1");
        netlink::offload::switch_off(name)?;
        let change = LinkChange { up: Some(true), mtu: Some(MTU), alias: Some(ALIAS.into()) };
        handle.set_link(name, &change).await?;
    }
    let index = async |name: &str| -> Result<u32, Cause> {
        let gone = || Error::attach(Program::Wrap, 0)(format!("{name} is gone"));
        Ok(handle.link(name).await?.ok_or_else(gone)?.index)
    };
    let (near, far) = (index(&near).await?, index(&far).await?);
    programs.attach_wrap(far)?;
    programs.set_wrap_device(Some(near))?;
    Ok(())
}

/// Takes the pair away, if it is there.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_wrap(handle: &Handle, device: &str) -> netlink::Result<()> {
    match handle.delete_link(&names(device)[0]).await {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

/// Both ends' names; a name has at most 15 bytes.
fn names(device: &str) -> [String; 2] {
    let stem: String = device.chars().take(13).collect();
    ["-a", "-b"].map(|end| format!("{stem}{end}"))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_fit_the_kernel() {
        assert_eq!(names("underpass0"), ["underpass0-a", "underpass0-b"]);
        assert!(names("a-name-of-15-by").iter().all(|name| name.len() == 15));
    }
}
