//! Telling the programs what the gateway forwards, by which devices, and behind which addresses it hides.
//!
//! Nothing here is needed for a packet to move once it is written: sessions, ports and times are the programs' own, so the
//! gateway goes on without a controller. Deliberately not here: what to forward (`node-core`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use abi::{
    FILTER_ADDRESS, FILTER_ADDRESS_AND_PORT, FILTER_NONE, Gateway, Lan, PeerKey, Program, ROUTE_PLAIN,
    ROUTE_TRANSLATED,
};
use ipnet::IpNet;

use crate::maps::{address, gone_is_fine, lpm_key};
use crate::{Error, Programs};

/// Ports that translation gives out. Below Linux's own ephemeral ports (32768 to 60999), so that neither the machine's
/// sockets nor netfilter's masquerade ever choose one; a socket bound inside the range keeps its port.
pub const NAT_PORTS: RangeInclusive<u16> = 16_384..=32_767;

/// Who outside may send to an outer endpoint (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// Anybody.
    EndpointIndependent,
    /// Who was sent to, from any port.
    AddressDependent,
    /// Who was sent to, from the port that was sent to.
    #[default]
    AddressAndPortDependent,
}

/// A device of the LAN side: what flows are hidden behind there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanPlan {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// What the gateway is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayPlan {
    /// The WireGuard device.
    pub tunnel: u32,
    /// Its MTU.
    pub mtu: u32,
    /// See [`Filtering`].
    pub filtering: Filtering,
    /// How many flows there may be; never more than the programs were loaded for.
    pub places: u32,
    /// The LAN side's devices, by index. They have Ethernet headers.
    pub lans: BTreeMap<u32, LanPlan>,
    /// What is forwarded to, and whether sources are hidden on the way there.
    pub routes: BTreeMap<IpNet, bool>,
}

impl Programs {
    /// Whether the programs forward, now or since an earlier run.
    pub fn is_gateway(&self) -> bool {
        self.maps.gateway.get(&0, 0).is_ok_and(|gateway| gateway.tunnel != 0)
    }

    /// Whether [`Self::set_gateway`] may be called: not before [`Self::complete`].
    pub fn may_be_gateway(&self) -> bool {
        self.is_complete
    }

    /// Makes the programs forward by `plan`, or not at all.
    ///
    /// # Errors
    /// When a map is full or refuses, or a program cannot be attached; then the stack forwards what the programs do not.
    pub fn set_gateway(&mut self, plan: Option<&GatewayPlan>) -> Result<(), Error> {
        // Half of the programs would mark packets that nobody translates.
        let Some(plan) = plan.filter(|_| self.is_complete) else { return self.stop_gateway() };
        self.set_routes(&plan.routes)?;
        for (ifindex, lan) in &plan.lans {
            let lan = Lan {
                v4: lan.v4.map_or(0, |ip| u32::from_ne_bytes(ip.octets())),
                zero: [0; 3],
                v6: lan.v6.map_or([0; 4], |ip| address(ip.into()).1),
            };
            self.maps.lans.insert(ifindex, lan, 0).map_err(Error::map("LANS"))?;
        }
        let gateway = Gateway {
            tunnel: plan.tunnel,
            mtu: plan.mtu,
            places: plan.places.min(self.maps.places.len()),
            filtering: match plan.filtering {
                Filtering::EndpointIndependent => FILTER_NONE,
                Filtering::AddressDependent => FILTER_ADDRESS,
                Filtering::AddressAndPortDependent => FILTER_ADDRESS_AND_PORT,
            },
            first_port: *NAT_PORTS.start(),
            last_port: *NAT_PORTS.end(),
            zero: 0,
        };
        // Translation stands before a packet is marked for it.
        let attached = plan.lans.keys().try_for_each(|ifindex| self.attach_lan(*ifindex));
        self.maps.gateway.set(0, gateway, 0).map_err(Error::map("GATEWAY"))?;
        self.drop_other_lans(&plan.lans)?;
        attached
    }

    fn stop_gateway(&mut self) -> Result<(), Error> {
        self.maps.gateway.set(0, Gateway::default(), 0).map_err(Error::map("GATEWAY"))?;
        self.drop_other_lans(&BTreeMap::new())
    }

    fn drop_other_lans(&mut self, kept: &BTreeMap<u32, LanPlan>) -> Result<(), Error> {
        let known: Vec<u32> = self.maps.lans.keys().filter_map(Result::ok).collect();
        for ifindex in known.iter().filter(|ifindex| !kept.contains_key(ifindex)) {
            gone_is_fine(self.maps.lans.remove(ifindex)).map_err(Error::map("LANS"))?;
        }
        for attachment in self.attachments()? {
            let is_lans = matches!(attachment.program, Program::ToTunnel | Program::IntoLan);
            if is_lans && !kept.contains_key(&attachment.ifindex) {
                self.detach_lan(attachment.ifindex)?;
            }
        }
        Ok(())
    }

    fn set_routes(&mut self, routes: &BTreeMap<IpNet, bool>) -> Result<(), Error> {
        let wanted: BTreeMap<(u32, PeerKey), u32> = routes
            .iter()
            .map(|(net, translated)| {
                let (family, address) = address(net.network());
                let bits = PeerKey::HEAD_BITS + u32::from(net.prefix_len());
                let kind = if *translated { ROUTE_TRANSLATED } else { ROUTE_PLAIN };
                ((bits, PeerKey::new(family, address)), kind)
            })
            .collect();
        let known: Vec<_> = self.maps.routes.keys().filter_map(Result::ok).collect();
        for (net, translated) in routes {
            let (family, address) = address(net.network());
            let key = lpm_key(PeerKey::HEAD_BITS, net, PeerKey::new(family, address));
            let kind = if *translated { ROUTE_TRANSLATED } else { ROUTE_PLAIN };
            self.maps.routes.insert(&key, kind, 0).map_err(Error::map("ROUTES"))?;
        }
        for key in known.iter().filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data()))) {
            gone_is_fine(self.maps.routes.remove(key)).map_err(Error::map("ROUTES"))?;
        }
        Ok(())
    }
}
