//! What drivers can do, by the generic-netlink family "netdev" (`linux/netdev.h`, Linux 6.3): so far, whether a device takes
//! frames that XDP sends out of it.

use std::collections::BTreeSet;

use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use crate::kernel::family;
use crate::socket::{Doing, Socket};
use crate::{Handle, Result};

/// `NETDEV_CMD_DEV_GET`.
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`, a `u32`, and `NETDEV_A_DEV_XDP_FEATURES`, a `u64`.
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TAKES_FRAMES: u64 = 4;

impl Handle {
    /// Which of these devices, by index, take frames from XDP programs; `None` where the kernel cannot say (before 6.3).
    ///
    /// The answer changes: a veth takes frames only while its other end has an XDP program or GRO, most cards only while
    /// they have a program themselves.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that a device is gone.
    pub async fn frame_outlets(&self, devices: &[u32]) -> Result<Option<BTreeSet<u32>>> {
        let family = match family("netdev").await {
            Ok(family) => family,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let socket = Socket::<GenlMessage<Features>>::open(NETLINK_GENERIC)?;
        let mut outlets = BTreeSet::new();
        // One by one: the kernel's dump of this family does not mark its messages as parts of one.
        for device in devices {
            let object = format!("features of device {device}");
            let mut request = GenlMessage::from_payload(Features { ifindex: *device, xdp: 0 });
            request.set_resolved_family_id(family);
            match socket.ask(request, Doing { action: "read", object: &object }).await {
                Ok(Some(answer)) if answer.payload.xdp & TAKES_FRAMES != 0 => _ = outlets.insert(*device),
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
        }
        Ok(Some(outlets))
    }
}

/// One device's features; as a request, of which device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Features {
    ifindex: u32,
    xdp: u64,
}

impl GenlFamily for Features {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Features {
    fn buffer_len(&self) -> usize {
        8
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..2].copy_from_slice(&8_u16.to_ne_bytes());
        buffer[2..4].copy_from_slice(&IFINDEX.to_ne_bytes());
        buffer[4..8].copy_from_slice(&self.ifindex.to_ne_bytes());
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Features {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> std::result::Result<Self, DecodeError> {
        let mut features = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            match (attribute.kind(), attribute.value()) {
                (IFINDEX, value) => {
                    features.ifindex = value.first_chunk().map_or(0, |v| u32::from_ne_bytes(*v));
                }
                (XDP_FEATURES, value) => {
                    features.xdp = value.first_chunk().map_or(0, |v| u64::from_ne_bytes(*v));
                }
                _ => {}
            }
        }
        Ok(features)
    }
}
