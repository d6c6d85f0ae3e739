//! Packets on a relay's port and what the `relay` program makes of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use abi::{Address, Family, Hop, Reason, RelayEnd, RelaySession};
use packet::{Relay, Sender, link_ends};

use crate::packets::{self, address_of, datagram, framed, sum_up};

/// One frame and what becomes of it.
pub struct RelayCase {
    /// What it shows.
    pub name: &'static str,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// What the program says.
    pub want: Reason,
    /// What is sent out, where something is.
    pub sent: Option<Vec<u8>>,
}

/// A client, and our address as it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The client's.
    pub client: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// The relay's port.
pub const RELAY_PORT: u16 = 40_000;
/// The longest packet that leaves.
pub const MTU: u32 = 1500;
/// A VNI without a session.
pub const NO_SESSION: u32 = 9;
/// A session whose clients have not bound.
pub const WAITING: u32 = 10;
/// A session whose second end cannot be reached without the stack.
pub const NO_WAY: u32 = 8;
/// Destination and source of the frames that arrive.
pub const IN: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// Destination and source of the frames that leave.
pub const OUT: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]);

/// Every session, by VNI: all pairs of families.
pub fn sessions() -> BTreeMap<u32, [End; 2]> {
    let (a4, b4) = (end("192.0.2.10:5001", "198.51.100.1"), end("203.0.113.20:6001", "198.51.100.1"));
    let (a6, b6) = (end("[2001:db8:1::10]:5002", "2001:db8::1"), end("[2001:db8:2::20]:6002", "2001:db8::1"));
    // Two ends behind one NAT, and an end that knows us by another address.
    let (c4, d4) = (end("192.0.2.10:5002", "198.51.100.1"), end("203.0.113.20:6001", "198.51.100.2"));
    BTreeMap::from([
        (1, [a4, b4]),
        (2, [a6, b6]),
        (3, [a4, b6]),
        (4, [b6, c4]),
        (0xff_ffff, [a4, c4]),
        (0x01_0203, [a6, d4]),
        (NO_WAY, [a4, end("198.51.99.7:6001", "198.51.100.1")]),
    ])
}

/// A payload of `len` bytes with the relay's header.
fn geneve(vni: u32, protocol: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|at| (at * 7 + 3) as u8).collect();
    packets::geneve(protocol, vni, &payload)
}

/// A packet from one client, as a frame.
pub fn from_client(from: &End, payload: &[u8]) -> Vec<u8> {
    framed(IN.0, IN.1, &datagram(64, from.client, from.local, payload))
}

/// The same packet on its way to the other client.
pub fn to_client(from: &End, to: &End, payload: &[u8]) -> Vec<u8> {
    let mut packet = datagram(63, to.local, to.client, payload);
    if from.client.is_ipv6() && to.client.is_ipv4() {
        // As in IPv6, no router may cut it into fragments.
        packet[6] = 0x40;
        sum_up(&mut packet);
    }
    framed(OUT.0, OUT.1, &packet)
}

/// Every case.
pub fn relay() -> Vec<RelayCase> {
    let mut cases = Vec::new();
    for (vni, ends) in sessions().into_iter().filter(|(vni, _)| *vni != NO_WAY) {
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            for (name, protocol, len) in [
                ("WireGuard", 0x7a12, 32),
                ("WireGuard of an odd length", 0x7a12, 1281),
                ("DISCO between clients", 0x7a11, 100),
                ("nothing behind the header", 0x7a12, 0),
            ] {
                let payload = geneve(vni, protocol, len);
                let (frame, sent) = (from_client(&from, &payload), to_client(&from, &to, &payload));
                cases.push(RelayCase { name, frame, want: Reason::Relayed, sent: Some(sent) });
            }
        }
    }
    for vni in [1, 2, 3, 4] {
        let ends = sessions()[&vni];
        cases.extend(attacks(vni, &ends[0]));
        cases.extend(unusual(vni, &ends[0], &ends[1]));
    }
    cases.extend(without_checksum());
    cases
}

fn attacks(vni: u32, from: &End) -> Vec<RelayCase> {
    let payload = geneve(vni, 0x7a12, 64);
    let case = |name, from: End, payload: &[u8], want| RelayCase {
        name,
        frame: from_client(&from, payload),
        want,
        sent: None,
    };
    let mut port = *from;
    port.client.set_port(from.client.port() + 1);
    let mut address = *from;
    address.client.set_ip(if from.client.is_ipv4() {
        [192, 0, 2, 11].into()
    } else {
        [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11].into()
    });
    let mut destination = *from;
    destination.local.set_ip(if from.client.is_ipv4() {
        [198, 51, 100, 2].into()
    } else {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into()
    });
    let mut transit = *from;
    transit.local.set_ip(if from.client.is_ipv4() {
        [198, 51, 100, 9].into()
    } else {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into()
    });
    vec![
        case("the client's address, another port", port, &payload, Reason::RelayWrongSource),
        case("a stranger", address, &payload, Reason::RelayWrongSource),
        case("to another address of ours", destination, &payload, Reason::RelayWrongSource),
        case("to an address that we route", transit, &payload, Reason::RelayOther),
        case("a guessed VNI", *from, &geneve(NO_SESSION, 0x7a12, 64), Reason::RelayUnknown),
        case("a VNI past all that exist", *from, &geneve(0xff_fffe, 0x7a12, 64), Reason::RelayUnknown),
        case("of a session that waits", *from, &geneve(WAITING, 0x7a12, 64), Reason::RelayOther),
        case("VNI zero", *from, &geneve(0, 0x7a12, 64), Reason::RelayUnknown),
        case(
            "a guessed VNI of another machine",
            transit,
            &geneve(NO_SESSION, 0x7a12, 64),
            Reason::RelayOther,
        ),
    ]
}

fn unusual(vni: u32, from: &End, to: &End) -> Vec<RelayCase> {
    let mut cases = Vec::new();
    let start = if from.client.is_ipv4() { 34 } else { 54 };
    let mut passes = |name, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = from_client(from, &geneve(vni, 0x7a12, 64));
        edit(&mut frame);
        cases.push(RelayCase { name, frame, want: Reason::RelayOther, sent: None });
    };
    let header = |at: usize, value: u8| {
        move |frame: &mut Vec<u8>| {
            frame[start + 8 + at] = value;
            sum_up(&mut frame[14..]);
        }
    };
    passes("a control packet", &header(1, 0x80));
    passes("a critical option", &header(1, 0x40));
    passes("another version", &header(0, 0x40));
    passes("options", &header(0, 1));
    passes("another protocol", &header(3, 0x13));
    passes("reserved bits", &header(7, 1));
    passes("an empty datagram", &|frame| frame.truncate(start + 8));
    passes("a UDP length below its headers", &|frame| frame[start + 5] = 15);
    passes("a UDP length past the end", &|frame| frame[start + 5] += 1);
    if from.client.is_ipv4() {
        passes("a first fragment", &|frame| frame[20] = 0x20);
        passes("a later fragment", &|frame| frame[21] = 10);
        passes("IPv4 options", &|frame| {
            frame[14] = 0x46;
            frame[17] += 4;
            frame.splice(34..34, [1, 1, 1, 1]);
        });
        passes("a time to live that is over", &|frame| {
            frame[22] = 1;
            sum_up(&mut frame[14..]);
        });
        passes("TCP", &|frame| frame[23] = 6);
    } else {
        passes("an extension header", &|frame| frame[20] = 60);
        passes("a hop limit that is over", &|frame| frame[21] = 1);
        passes("without a UDP checksum, which IPv6 must have", &|frame| frame[start + 6..start + 8].fill(0));
    }
    let packet = from_client(from, &geneve(vni, 0x7a12, 64)).split_off(14);
    cases.push(RelayCase {
        name: "a checksum left to the device",
        frame: framed(IN.0, IN.1, &crate::stun_cases::partially_summed(packet)),
        want: Reason::RelayPartial,
        sent: None,
    });
    let overhead = if to.client.is_ipv4() { 28 } else { 48 };
    for (name, more, want) in
        [("as long as the way takes", 0, Reason::Relayed), ("one byte longer", 1, Reason::RelayTooBig)]
    {
        let payload = geneve(vni, 0x7a12, MTU as usize - overhead - 8 + more);
        let sent = (want == Reason::Relayed).then(|| to_client(from, to, &payload));
        cases.push(RelayCase { name, frame: from_client(from, &payload), want, sent });
    }
    let ends = sessions()[&NO_WAY];
    cases.push(RelayCase {
        name: "no neighbor yet",
        frame: from_client(&ends[0], &geneve(NO_WAY, 0x7a12, 64)),
        want: Reason::RelayNoWay,
        sent: None,
    });
    cases
}

/// Without a UDP checksum, which IPv4 allows.
fn without_checksum() -> Vec<RelayCase> {
    let case = |name, vni: u32, want| {
        let [from, to] = sessions()[&vni];
        let payload = geneve(vni, 0x7a12, 64);
        let mut frame = from_client(&from, &payload);
        frame[40..42].fill(0);
        let sent = (want == Reason::Relayed).then(|| {
            let mut sent = to_client(&from, &to, &payload);
            sent[40..42].fill(0);
            sent
        });
        RelayCase { name, frame, want, sent }
    };
    let mut wrong = from_client(&sessions()[&3][0], &geneve(3, 0x7a12, 64));
    wrong[24] ^= 0x10;
    let name = "a wrong header checksum, towards IPv6, which has none to be wrong";
    vec![
        case("without a checksum, and it stays so", 1, Reason::Relayed),
        case("without a checksum, towards IPv6", 3, Reason::RelayOther),
        RelayCase { name, frame: wrong, want: Reason::RelayOther, sent: None },
    ]
}

fn end(client: &str, local: &str) -> End {
    let parsed = client.parse().unwrap_or_else(|_| panic!("{client} is an address"));
    let local = local.parse().unwrap_or_else(|_| panic!("{local} is an address"));
    End { client: parsed, local: SocketAddr::new(local, RELAY_PORT) }
}

/// What the program knows, on the host.
pub struct RelayHost(BTreeMap<u32, RelaySession>);

impl RelayHost {
    /// With the sessions of the cases.
    pub fn new() -> Self {
        let mut all: BTreeMap<u32, RelaySession> =
            sessions().into_iter().map(|(vni, ends)| (vni, session(ends, vni))).collect();
        let stamp = RelaySession::stamp(WAITING, 1);
        all.insert(WAITING, RelaySession { stamp, ..RelaySession::default() });
        Self(all)
    }
}

impl Default for RelayHost {
    fn default() -> Self {
        Self::new()
    }
}

fn session(ends: [End; 2], vni: u32) -> RelaySession {
    let mut ends = ends.map(|end| {
        let (family, address) = address_of(end.client.ip());
        let (_, local) = address_of(end.local.ip());
        let port = end.client.port().to_be_bytes();
        RelayEnd { address, local, port, family: family as u8, ..RelayEnd::default() }
    });
    link_ends(&mut ends);
    RelaySession { stamp: RelaySession::stamp(vni, 1), ends, ..RelaySession::default() }
}

impl Relay for RelayHost {
    fn session(&self, vni: u32) -> Option<(&RelaySession, u64)> {
        self.0.get(&vni).map(|session| (session, session.stamp))
    }

    fn is_own(&self, address: &Address, family: Family) -> bool {
        ["198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2"]
            .iter()
            .any(|own| address_of(own.parse().expect("an address")) == (family, *address))
    }

    fn way(&self, from: &Sender<'_>, length: u32) -> Result<Hop, Reason> {
        let macs = [OUT.0, OUT.1].concat();
        let word = |at: usize| u32::from_ne_bytes([macs[at], macs[at + 1], macs[at + 2], macs[at + 3]]);
        match RelaySession::vni(from.stamp) {
            NO_WAY => Err(Reason::RelayNoWay),
            _ if length > MTU => Err(Reason::RelayTooBig),
            _ => Ok(Hop { asked: 1, ifindex: 7, mtu: MTU, macs: [word(0), word(4), word(8)], number: 1 }),
        }
    }

    fn count(&self, from: &Sender<'_>, _: u32) -> bool {
        from.stamp == from.session.stamp
    }
}
