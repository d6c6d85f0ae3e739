//! Traffic: everything on its way, and what nodes and kernels do with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use node_core::{Carry, DerpState, Event, FromDerp, Path, Slot, Transmit, Uplink};
use relay_core::{Leg, Relayed};
use types::{NodePublic, RegionId, Vni};
use wire::control::{MapResponse, PeerChange};
use wire::geneve::{Header, Protocol};

use crate::kernel::Packet;
use crate::world::{CONTROL_DELAY, DERP_DELAY, Host, LOOPBACK_PORT, RELAY_PORT, World};

/// What travels by UDP.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Bytes(Vec<u8>),
    WireGuard {
        from: NodePublic,
        to: NodePublic,
        packet: Packet,
    },
    /// The same behind a Geneve header.
    Relayed {
        vni: Vni,
        from: NodePublic,
        to: NodePublic,
        packet: Packet,
    },
}

#[derive(Debug)]
pub(crate) enum Delivery {
    Udp { from: SocketAddr, to: SocketAddr, payload: Payload },
    Derp { host: usize, region: RegionId, from: NodePublic, payload: Payload },
    Map { host: usize, map: Box<MapResponse> },
    DerpUp { host: usize, region: RegionId },
}

impl World {
    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Udp { from, to, payload } => self.deliver_udp(from, to, payload),
            Delivery::Map { host, map } => {
                if self.hosts[host].is_up {
                    self.hosts[host].node.handle_map(*map, now);
                    self.drain(host);
                }
            }
            Delivery::DerpUp { host, region } => {
                self.hosts[host].node.handle_derp_state(region, DerpState::Connected, now);
                self.drain(host);
            }
            Delivery::Derp { host, region, from, payload } => {
                if !self.hosts[host].derp.contains(&region) {
                    return;
                }
                let node = &mut self.hosts[host].node;
                let (bytes, packet) = match payload {
                    Payload::Bytes(bytes) => (bytes, None),
                    Payload::WireGuard { packet, .. } => (vec![1, 0, 0, 0], Some(packet)),
                    Payload::Relayed { .. } => return,
                };
                let verdict = node.handle_derp(region, from, &bytes, now);
                if packet.is_some()
                    && let Some(sender) = self.hosts.iter().position(|host| host.key == from)
                {
                    self.flows.remove(&(sender, host));
                }
                if let (FromDerp::Deliver(slot), Some(packet)) = (verdict, packet) {
                    self.receive(host, from, SocketAddr::new(slot.ip().into(), LOOPBACK_PORT), packet);
                }
                self.drain(host);
            }
        }
    }

    fn deliver_udp(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        let now = self.now;
        if matches!(to.ip(), IpAddr::V4(ip) if ip.octets()[..3] == [198, 51, 100]) {
            let Payload::Bytes(bytes) = payload else { return };
            let Ok(tx_id) = wire::stun::decode_request(&bytes) else { return };
            self.travel(to, from, Payload::Bytes(wire::stun::encode_response(tx_id, from)));
            return;
        }
        if to.port() == RELAY_PORT {
            let relay = self.hosts.iter().position(|host| host.relay.is_some() && host.relay_address() == to);
            relay.into_iter().for_each(|host| self.relay(host, from, payload.clone()));
            return;
        }
        let nat = self.nats.iter_mut().find(|nat| nat.public_ip() == to.ip());
        let inside = nat.map_or(Some(to), |nat| nat.inbound(from, to, now));
        let at = |host: &Host| host.lines.iter().position(|line| Some(line.inside) == inside);
        let found = self.hosts.iter().enumerate().find_map(|(index, host)| Some((index, at(host)?)));
        if let Some((host, line)) = found.filter(|(host, line)| {
            let line = &self.hosts[*host].lines[*line];
            line.carrier && line.passes[1]
        }) {
            if let Payload::WireGuard { from: key, .. } = &payload
                && let Some(sender) = self.hosts.iter().position(|host| host.key == *key)
            {
                self.flows.insert((sender, host), (from, to));
            }
            self.arrive(host, line, from, payload);
        }
    }

    /// A datagram comes out of a host's line.
    fn arrive(&mut self, index: usize, line: usize, from: SocketAddr, payload: Payload) {
        let now = self.now;
        let host = &mut self.hosts[index];
        match payload {
            Payload::Bytes(bytes) => {
                let is_lost = host.drops_disco && wire::disco::looks_like_disco(&bytes);
                if host.is_up && !is_lost {
                    let path = Path { uplink: Some(Uplink(line as u32 + 2)), ..Path::direct(from) };
                    host.node.handle_datagram(path, &bytes, now);
                }
            }
            Payload::Relayed { vni, from: key, to, packet } => {
                let path = Path { uplink: Some(Uplink(line as u32 + 2)), ..Path::direct(from) };
                let for_us = host.is_up && to == host.key;
                let slot =
                    for_us.then(|| host.node.handle_datagram(path, &relayed_bytes(vni), now)).flatten();
                if let Some(slot) = slot {
                    self.receive(index, key, SocketAddr::new(slot.ip().into(), LOOPBACK_PORT), packet);
                }
            }
            Payload::WireGuard { from: key, to, packet } => {
                if !host.drops_wireguard && to == host.key {
                    self.receive(index, key, from, packet);
                }
            }
        }
        self.drain(index);
    }

    fn receive(&mut self, index: usize, from: NodePublic, source: SocketAddr, packet: Packet) {
        let (now, wall) = (self.now, self.wall());
        if let Some(id) = self.hosts[index].kernel.receive(from, source, packet, wall, now) {
            self.arrived.entry(id).or_insert(now);
        }
    }

    /// Does what a host's node and kernel want done.
    pub(crate) fn drain(&mut self, index: usize) {
        loop {
            let host = &mut self.hosts[index];
            if let Some((to, endpoint, packet)) = host.kernel.out.pop() {
                self.kernel_sends(index, to, endpoint, packet);
            } else if !host.is_up {
                return;
            } else if let Some(transmit) = host.node.poll_transmit() {
                match transmit {
                    Transmit::Udp { path, bytes } => {
                        host.controller_sent += 1;
                        let header =
                            path.vni.map(|vni| Header { control: false, protocol: Protocol::Disco, vni });
                        let header = header.map(|header| header.encode().to_vec()).unwrap_or_default();
                        self.udp(index, path, Payload::Bytes([header, bytes].concat()));
                    }
                    Transmit::Derp { region, to, bytes } => {
                        self.derp(index, region, to, Payload::Bytes(bytes));
                    }
                }
            } else if let Some(event) = host.node.poll_event() {
                self.handle_event(index, event);
            } else {
                return;
            }
        }
    }

    fn handle_event(&mut self, index: usize, event: Event) {
        let now = self.now;
        let host = &mut self.hosts[index];
        match event {
            Event::ObserveKernel => {
                let dump = host.kernel.dump();
                host.node.handle_kernel(&dump, now);
            }
            Event::DesiredChanged => host.kernel.apply(host.node.desired()),
            Event::SetEndpoint { peer, endpoint } => host.kernel.set_endpoint(peer, endpoint),
            Event::EndpointsChanged(endpoints) => {
                host.endpoints = endpoints.iter().map(|endpoint| endpoint.addr).collect();
                self.tell_others(index);
            }
            Event::NetInfoChanged => {
                host.home = host.node.home().unwrap_or_default();
                self.tell_others(index);
            }
            Event::ConnectDerp { region, .. } => {
                host.derp.insert(region);
                self.at(now + DERP_DELAY, Delivery::DerpUp { host: index, region });
            }
            Event::CloseDerp(region) => drop(host.derp.remove(&region)),
            Event::PinsChanged => {
                let routes = host.node.pinned_routes();
                host.pins = routes.into_iter().map(|(remote, hop)| (remote, hop.uplink)).collect();
            }
            Event::PathChanged { .. } => host.path_changes += 1,
            Event::AllocateRelay { peer, disco, clients, generation } => {
                let endpoint = host.relay.as_mut().and_then(|relay| relay.allocate(disco, clients, now).ok());
                if let Some(endpoint) = endpoint {
                    host.node.answer_allocation(peer, disco, generation, endpoint, now);
                }
            }
            Event::PingResult { id, result } => drop(host.pings.insert(id, result)),
            Event::BadMap(why) => panic!("bad map: {why}"),
            _ => {}
        }
    }

    /// Control passes on what a host reported.
    fn tell_others(&mut self, index: usize) {
        let node = self.wire_node(index);
        let patch = PeerChange {
            node_id: node.id,
            endpoints: node.endpoints,
            derp_region: node.home_derp,
            ..PeerChange::default()
        };
        for host in (0..self.hosts.len()).filter(|host| *host != index) {
            let map =
                MapResponse { peers_changed_patch: vec![patch.clone()].into(), ..MapResponse::default() };
            // After the map of the beginning.
            let at = self.now.max(self.start + CONTROL_DELAY) + CONTROL_DELAY;
            self.at(at, Delivery::Map { host, map: map.into() });
        }
    }

    fn kernel_sends(&mut self, index: usize, to: NodePublic, endpoint: SocketAddr, packet: Packet) {
        let host = &mut self.hosts[index];
        let payload = Payload::WireGuard { from: host.key, to, packet };
        let Some(slot) = Slot::from_ip(endpoint.ip()) else {
            // The kernel follows its routes.
            let uplink = host.pins.get(&endpoint.ip()).copied();
            self.udp(index, Path { uplink, ..Path::direct(endpoint) }, payload);
            return;
        };
        if !host.is_up {
            return;
        }
        match host.node.handle_loopback(slot, &[1, 0, 0, 0], self.now) {
            Some(Carry::Derp { region, to: peer }) => {
                assert_eq!(peer, to, "the slot is the peer's");
                self.derp(index, region, to, payload);
            }
            Some(Carry::Udp(path @ Path { vni: Some(vni), .. })) => {
                self.hosts[index].relayed_sent += 1;
                let Payload::WireGuard { from, to, packet } = payload else { unreachable!() };
                self.udp(index, path, Payload::Relayed { vni, from, to, packet });
            }
            Some(Carry::Udp(path)) => self.udp(index, path, payload),
            None => {}
        }
    }

    pub(crate) fn derp(&mut self, index: usize, region: RegionId, to: NodePublic, payload: Payload) {
        let from = self.hosts[index].key;
        let hangs = |host: &Host| host.derp_hangs;
        if let Some(host) = self.hosts.iter().position(|host| host.key == to)
            && !hangs(&self.hosts[index])
            && !hangs(&self.hosts[host])
        {
            self.at(self.now + 2 * DERP_DELAY, Delivery::Derp { host, region, from, payload });
        }
    }

    fn udp(&mut self, index: usize, path: Path, payload: Payload) {
        let (now, to) = (self.now, path.remote);
        let lines = &self.hosts[index].lines;
        let line = match path.uplink {
            Some(Uplink(number)) => lines.get(number as usize - 2),
            None => lines.iter().find(|line| line.carrier),
        };
        let Some(line) = line.filter(|line| line.carrier && line.passes[0]).cloned() else { return };
        let nat = &mut self.nats[line.nat];
        let neighbor =
            |host: &Host| host.lines.iter().any(|other| other.nat == line.nat && other.inside == to);
        if self.hosts.iter().any(neighbor) {
            self.travel(line.inside, to, payload);
        } else if to.ip() != nat.public_ip() || nat.hairpins() {
            let from = nat.outbound(line.inside, to, now);
            // Private addresses lead nowhere.
            if let Some(from) = from.filter(|_| !matches!(to.ip(), IpAddr::V4(ip) if ip.is_private())) {
                self.travel(from, to, payload);
            }
        }
    }

    /// A host's relay has got a packet.
    fn relay(&mut self, index: usize, from: SocketAddr, payload: Payload) {
        let (now, bytes) = (
            self.now,
            match &payload {
                Payload::Bytes(bytes) => bytes.clone(),
                Payload::Relayed { vni, .. } => relayed_bytes(*vni),
                Payload::WireGuard { .. } => return,
            },
        );
        let random = std::array::from_fn(|_| self.below(256) as u8);
        let ours = self.hosts[index].relay_address();
        let Some(relay) = &mut self.hosts[index].relay else { return };
        let leg = Leg { remote: from, local: Some(ours.ip()) };
        match relay.handle_packet(leg, &bytes, now, &mut || random) {
            Relayed::Forward(to) => self.travel(ours, to.remote, payload),
            Relayed::Reply(bytes) => self.travel(ours, from, Payload::Bytes(bytes)),
            Relayed::Nothing => {}
        }
    }

    fn travel(&mut self, from: SocketAddr, to: SocketAddr, payload: Payload) {
        if self.below(100) < self.loss {
            return;
        }
        let delay = Duration::from_micros(10_000 + self.below(30_000));
        self.at(self.now + delay, Delivery::Udp { from, to, payload });
    }
}

/// The start of a WireGuard packet as it comes through a place on a relay.
fn relayed_bytes(vni: Vni) -> Vec<u8> {
    let header = Header { control: false, protocol: Protocol::WireGuard, vni };
    [&header.encode()[..], &[1, 0, 0, 0]].concat()
}
