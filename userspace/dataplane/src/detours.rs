//! Detours: relayed peers and peers that hear us from another port, as the programs' tables.
//!
//! A relayed peer's WireGuard endpoint is the relay's address with a port that we choose; the programs turn it into the
//! relay's port and a VNI. Packets get the relay's header on a veth pair of our own (`wrap`). The tables are pinned: they
//! work while no process runs. Deliberately not here: which peers take detours (`node-core`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use abi::{Arrival, Endpoint, Family, Inward, Outward, vni_word};

use crate::maps::{address, gone_is_fine};
use crate::{Error, Program, Programs};

/// A peer behind a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relayed {
    /// Where the relay is.
    pub relay: SocketAddr,
    /// The session's number at the relay: 24 bits, not zero.
    pub vni: u32,
    /// The port that WireGuard believes the peer to have, at the relay's address. One for each relay and VNI, not zero, and no
    /// port at which a peer could really be reached there.
    pub port: u16,
}

impl Relayed {
    /// The peer's endpoint as WireGuard is told.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.relay.ip(), self.port)
    }
}

/// A peer that hears us from another port than WireGuard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rewritten {
    /// The peer's endpoint, as WireGuard is told and as it is.
    pub remote: SocketAddr,
    /// Our port towards it. It must be one of [`Programs::set_probe_ports`] for answers to come in.
    pub source: u16,
}

impl Programs {
    /// These are the relayed peers now, all of them. What stays is not touched.
    ///
    /// # Errors
    /// [`Error::BadDetour`] for a VNI or port that is none; more than [`abi::MAX_DETOURS`]; a map that refuses.
    pub fn set_relayed(&mut self, relayed: &[Relayed]) -> Result<(), Error> {
        let now = self.detours()?;
        if now.relayed == relayed.iter().copied().collect() {
            return Ok(());
        }
        self.write_detours(relayed, &Vec::from_iter(now.rewritten))
    }

    /// These are the peers now that we speak to from other ports, all of them.
    ///
    /// # Errors
    /// As [`Self::set_relayed`].
    pub fn set_rewritten(&mut self, rewritten: &[Rewritten]) -> Result<(), Error> {
        let now = self.detours()?;
        if now.rewritten == rewritten.iter().copied().collect() {
            return Ok(());
        }
        self.write_detours(&Vec::from_iter(now.relayed), rewritten)
    }

    /// The relayed peers in the programs' tables, also those that an earlier process put there.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn relayed(&self) -> Result<BTreeSet<Relayed>, Error> {
        self.detours().map(|detours| detours.relayed)
    }

    /// Ports besides WireGuard's on which DISCO is taken for the controller, and WireGuard's packets of
    /// [`Self::set_rewritten`] peers for WireGuard. Sockets on them get everything else. An empty range: none.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_probe_ports(&mut self, ports: &Range<u16>) -> Result<(), Error> {
        self.maps.configure(|config| {
            config.probe_first = ports.start;
            config.probe_count = ports.end.saturating_sub(ports.start);
        })
    }

    /// The mark of our own packets on the underlay.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_bypass(&mut self, mark: u32, mask: u32) -> Result<(), Error> {
        self.maps.configure(|config| (config.bypass_mark, config.bypass_mask) = (mark, mask))
    }

    /// Which device leads to `wrap`; `None`: none, and relayed peers are cut off.
    ///
    /// # Errors
    /// When the map refuses.
    pub(crate) fn set_wrap_device(&mut self, near: Option<u32>) -> Result<(), Error> {
        self.maps.configure(|config| config.wrap_ifindex = near.unwrap_or(0))
    }

    /// Whether there are any.
    pub(crate) fn has_detours(&self) -> Result<bool, Error> {
        Ok(self.maps.config.get(&0, 0).map_err(Error::map("CONFIG"))?.detours != 0)
    }

    /// What is in the tables.
    fn detours(&self) -> Result<Detours, Error> {
        let mut found = Detours::default();
        for entry in self.maps.detours_out.iter() {
            let (key, outward) = entry.map_err(Error::map("DETOURS_OUT"))?;
            let (ip, port) = (ip(&key), u16::from_be_bytes(key.port));
            found.keys.insert(key);
            if outward.vni != 0 {
                let relay = SocketAddr::new(ip, u16::from_be_bytes(outward.port));
                found.relayed.insert(Relayed { relay, vni: u32::from_be(outward.vni) >> 8, port });
            }
            let source = u16::from_be_bytes(outward.source_port);
            if source != 0 {
                found.rewritten.insert(Rewritten { remote: SocketAddr::new(ip, port), source });
            }
        }
        Ok(found)
    }

    /// Way in before way out, and way out gone before way in: what is answered can be heard.
    fn write_detours(&mut self, relayed: &[Relayed], rewritten: &[Rewritten]) -> Result<(), Error> {
        let config = self.maps.config.get(&0, 0).map_err(Error::map("CONFIG"))?;
        let (out, back) = tables(relayed, rewritten, config.wireguard_port)?;
        for (arrival, inward) in &back {
            self.maps.detours_in.insert(arrival, inward, 0).map_err(Error::map("DETOURS_IN"))?;
        }
        if !out.is_empty() {
            self.maps.configure(|config| config.detours = 1)?;
            self.follow_detours(true)?;
        }
        for (endpoint, outward) in &out {
            self.maps.detours_out.insert(endpoint, outward, 0).map_err(Error::map("DETOURS_OUT"))?;
        }
        for key in self.detours()?.keys.difference(&out.keys().copied().collect()) {
            gone_is_fine(self.maps.detours_out.remove(key)).map_err(Error::map("DETOURS_OUT"))?;
        }
        let stale: Vec<Arrival> = self
            .maps
            .detours_in
            .keys()
            .filter_map(Result::ok)
            .filter(|arrival| !back.contains_key(arrival))
            .collect();
        for arrival in stale {
            gone_is_fine(self.maps.detours_in.remove(&arrival)).map_err(Error::map("DETOURS_IN"))?;
        }
        self.maps.configure(|config| config.detours = u32::from(!out.is_empty()))?;
        self.follow_detours(!out.is_empty())
    }

    /// `egress` is where `steer` is, while it has something to do.
    fn follow_detours(&mut self, wanted: bool) -> Result<(), Error> {
        let steered = self.attachments()?.into_iter().filter(|found| found.program == Program::Steer);
        steered.into_iter().try_for_each(|found| self.attach_egress(found.ifindex, wanted))
    }
}

/// Detours as found in the tables.
#[derive(Default)]
struct Detours {
    relayed: BTreeSet<Relayed>,
    rewritten: BTreeSet<Rewritten>,
    keys: BTreeSet<Endpoint>,
}

type Tables = (BTreeMap<Endpoint, Outward>, BTreeMap<Arrival, Inward>);

/// Both tables. A relayed peer may be spoken to from another port, too.
fn tables(relayed: &[Relayed], rewritten: &[Rewritten], wireguard: [u8; 2]) -> Result<Tables, Error> {
    let mut out = BTreeMap::new();
    for Relayed { relay, vni, port } in relayed {
        if *vni == 0 || *vni > 0xff_ffff || *port == 0 || relay.port() == 0 {
            let what = format!("{relay} VNI {vni} as port {port}: no such VNI or port");
            return Err(Error::BadDetour(what));
        }
        let outward = Outward { vni: vni_word(*vni), port: relay.port().to_be_bytes(), source_port: [0; 2] };
        if out.insert(endpoint(SocketAddr::new(relay.ip(), *port)), outward).is_some() {
            let what = format!("{relay} VNI {vni} as port {port}: the port stands for another VNI");
            return Err(Error::BadDetour(what));
        }
    }
    for Rewritten { remote, source } in rewritten {
        let direct = Outward { vni: 0, port: remote.port().to_be_bytes(), source_port: [0; 2] };
        out.entry(endpoint(*remote)).or_insert(direct).source_port = source.to_be_bytes();
    }
    if out.len() > abi::MAX_DETOURS as usize {
        return Err(Error::BadDetour(format!("{} of them; the table holds {}", out.len(), abi::MAX_DETOURS)));
    }
    let back = out.iter().map(|(endpoint, outward)| {
        let source = outward.source_port;
        let arrival = Arrival {
            address: endpoint.address,
            port: outward.port,
            local_port: if source == [0; 2] { wireguard } else { source },
            vni: outward.vni,
            family: endpoint.family.into(),
        };
        (arrival, Inward { port: endpoint.port, zero: [0; 2] })
    });
    let back = back.collect();
    Ok((out, back))
}

fn endpoint(remote: SocketAddr) -> Endpoint {
    let (family, address) = address(remote.ip());
    Endpoint::new(family, address, remote.port().to_be_bytes())
}

fn ip(endpoint: &Endpoint) -> IpAddr {
    let octets = endpoint.address.map(u32::to_ne_bytes).concat();
    if endpoint.family == Family::V4 as u8 {
        IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
    } else {
        let mut all = [0; 16];
        all.copy_from_slice(&octets);
        IpAddr::from(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIREGUARD: [u8; 2] = 41641_u16.to_be_bytes();

    #[test]
    fn what_goes_out_by_a_detour_comes_back_as_the_endpoint_it_was_sent_to() {
        let relayed = Relayed { relay: "203.0.113.1:7777".parse().unwrap(), vni: 5, port: 9 };
        let rewritten = Rewritten { remote: "[2001:db8::7]:41641".parse().unwrap(), source: 40_001 };
        let (out, back) = tables(&[relayed], &[rewritten], WIREGUARD).unwrap();
        for (endpoint, outward) in &out {
            let local_port = if outward.vni == 0 { 40_001_u16.to_be_bytes() } else { WIREGUARD };
            let arrival = Arrival {
                address: endpoint.address,
                port: outward.port,
                local_port,
                vni: outward.vni,
                family: endpoint.family.into(),
            };
            assert_eq!(back[&arrival].port, endpoint.port);
        }
        assert_eq!((out.len(), back.len()), (2, 2));
    }

    #[test]
    fn a_relayed_peer_can_be_spoken_to_from_another_port() {
        let relayed = Relayed { relay: "203.0.113.1:7777".parse().unwrap(), vni: 5, port: 9 };
        let rewritten = Rewritten { remote: relayed.endpoint(), source: 40_001 };
        let (out, _) = tables(&[relayed], &[rewritten], WIREGUARD).unwrap();
        let outward =
            Outward { vni: vni_word(5), port: 7777_u16.to_be_bytes(), source_port: 40_001_u16.to_be_bytes() };
        assert_eq!(Vec::from_iter(out.into_values()), [outward]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let relay = "203.0.113.1:7777".parse().unwrap();
        let fine = Relayed { relay, vni: 5, port: 9 };
        for bad in [Relayed { vni: 0, ..fine }, Relayed { vni: 1 << 24, ..fine }, Relayed { port: 0, ..fine }]
        {
            assert!(tables(&[bad], &[], WIREGUARD).is_err(), "{bad:?}");
        }
        assert!(tables(&[fine, Relayed { vni: 6, ..fine }], &[], WIREGUARD).is_err());
    }
}
