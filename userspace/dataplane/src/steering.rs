//! How packets are steered on each device of the underlay: by XDP ahead of the stack, or in TC alone.
//!
//! `steer` (TC) is on all of them, for only TC can hand a packet to a socket. XDP is for what never needs a socket, and it has
//! a price: attaching may reset a card's queues, and on a veth it switches segmentation off at the other end. So it is
//! attached once, where it serves, and stays. Deliberately not here: attaching itself (`attach`), which devices there are.

use std::collections::BTreeMap;

use crate::attach::NoXdp;
use crate::{Error, Programs};

/// What the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// XDP where the driver has it and it serves, else TC.
    #[default]
    Auto,
    /// XDP wherever it can be.
    Xdp,
    /// TC alone.
    Tc,
}

impl std::str::FromStr for Steer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "xdp" => Ok(Self::Xdp),
            "tc" => Ok(Self::Tc),
            other => Err(format!("{other:?} is not auto, xdp or tc")),
        }
    }
}

/// A device on which peers' packets may arrive, as far as steering depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// It is an end of a veth pair.
    pub veth: bool,
    /// VLAN devices are on top of it.
    pub vlans: bool,
    /// Some route leads on from here: a gateway is behind it.
    pub uplink: bool,
    /// Drivers have limits for XDP.
    pub mtu: u32,
    /// The XDP program on it, whoever's it is.
    pub xdp: Option<u32>,
}

/// How it is done on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// XDP, and TC for what needs a socket.
    Xdp,
    /// TC alone, and why.
    Tc(NoXdp),
}

impl Programs {
    /// Steers on these devices, which are attached to where they are not yet. A device that fails fails alone. In TC
    /// before the programs are complete.
    pub fn steer(
        &mut self,
        wanted: Steer,
        devices: &BTreeMap<u32, Device>,
    ) -> Vec<(u32, Result<Steering, Error>)> {
        devices.iter().map(|(ifindex, device)| (*ifindex, self.steer_on(wanted, *ifindex, device))).collect()
    }

    fn steer_on(&mut self, wanted: Steer, ifindex: u32, device: &Device) -> Result<Steering, Error> {
        self.attach_underlay(ifindex)?;
        self.attach_egress(ifindex, self.has_detours()?)?;
        if let Some(why) = unwanted(wanted, device, self.relays()?)
            && (why.is_firm() || !self.steered_by_xdp.contains(&ifindex))
        {
            self.steered_by_xdp.remove(&ifindex);
            self.detach_xdp(ifindex)?;
            return Ok(Steering::Tc(why));
        }
        match self.attach_xdp(ifindex)? {
            Ok(()) => {
                self.steered_by_xdp.insert(ifindex);
                Ok(Steering::Xdp)
            }
            Err(why) => Ok(Steering::Tc(why)),
        }
    }

    /// Whether this machine relays or answers STUN, which is what XDP serves most.
    fn relays(&self) -> Result<bool, Error> {
        let config = self.maps.config.get(&0, 0).map_err(Error::map("CONFIG"))?;
        Ok(config.relay_port != [0; 2] || config.stun_port != [0; 2])
    }
}

impl NoXdp {
    /// Whether XDP is taken off for it. The others come and go with routes, and a card is not reset for that.
    fn is_firm(self) -> bool {
        matches!(self, Self::Asked | Self::Vlans)
    }
}

/// Why XDP is not even tried.
fn unwanted(wanted: Steer, device: &Device, relays: bool) -> Option<NoXdp> {
    let auto = wanted == Steer::Auto && !relays;
    let reasons = [
        (wanted == Steer::Tc, NoXdp::Asked),
        (device.vlans, NoXdp::Vlans),
        (auto && !device.uplink, NoXdp::NoUplink),
        (auto && device.veth, NoXdp::Veth),
    ];
    reasons.into_iter().find_map(|(holds, why)| holds.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Device {
        Device { name: "eth0".into(), uplink: true, mtu: 1500, ..Device::default() }
    }

    #[test]
    fn an_uplink_of_a_real_card_gets_xdp_and_others_only_where_they_serve() {
        let (veth, lan) = (Device { veth: true, ..card() }, Device { uplink: false, ..card() });
        for (device, auto) in [(card(), None), (veth, Some(NoXdp::Veth)), (lan, Some(NoXdp::NoUplink))] {
            assert_eq!(unwanted(Steer::Auto, &device, false), auto);
            assert_eq!(unwanted(Steer::Auto, &device, true), None, "a relay's");
            assert_eq!(unwanted(Steer::Xdp, &device, false), None);
            assert_eq!(unwanted(Steer::Tc, &device, true), Some(NoXdp::Asked));
        }
    }

    /// A card takes the tag off before XDP sees the frame: a VLAN's frame would be answered outside of its VLAN.
    #[test]
    fn a_device_with_vlans_on_it_never_gets_xdp() {
        for wanted in [Steer::Auto, Steer::Xdp] {
            let device = Device { vlans: true, ..card() };
            assert_eq!(unwanted(wanted, &device, true), Some(NoXdp::Vlans));
        }
        assert!(NoXdp::Vlans.is_firm() && NoXdp::Asked.is_firm() && !NoXdp::NoUplink.is_firm());
    }
}
