//! The packet filter on what comes out of the tunnel, with Tailscale's semantics (`wgengine/filter/filter.go`).
//!
//! Two places are stricter than Tailscale, on purpose: a later fragment must be for a local address like any other
//! packet, and an ICMPv4 "parameter problem" is type 12 (RFC 792), which Tailscale writes as 0x12.

use abi::{Address, Family, FlowKey, PairKey, PortRange, Reason, Span};

use crate::{Frame, Ip, Piece, proto, reply_of};

/// How deep the search in a span can go: `log2` of the most ranges there are, and one.
const SEARCH_STEPS: u32 = abi::MAX_RANGES.ilog2() + 1;

/// The loaded filter and the known flows. One generation throughout a packet.
pub trait Lookups {
    /// The generation that is active, or zero.
    fn generation(&self) -> u32;
    /// Class of a sender; none if no rule names it.
    fn source_class(&self, generation: u32, family: Family, address: Address) -> Option<u32>;
    /// Class of a receiver; none if it is not local.
    fn destination_class(&self, generation: u32, family: Family, address: Address) -> Option<u32>;
    /// What the rules open between two classes; none if nothing, not even ICMP.
    fn pair(&self, key: PairKey) -> Option<Span>;
    /// An entry of the range list.
    fn range(&self, position: u32) -> Option<PortRange>;
    /// Whether we sent on this flow lately.
    fn is_live(&self, flow: &FlowKey) -> bool;
}

/// Judges a packet from the tunnel.
#[inline(always)]
pub fn decide(ip: &Ip, frame: &impl Frame, lookups: &impl Lookups) -> Reason {
    let generation = lookups.generation();
    if generation == 0 {
        return Reason::NoFilter;
    }
    let transport = match Transport::read(ip, frame) {
        Ok(transport) => transport,
        Err(reason) => return reason,
    };
    if ip.is_multicast() {
        return Reason::Multicast;
    }
    if ip.is_link_local() {
        return Reason::LinkLocal;
    }
    let Some(destination) = lookups.destination_class(generation, ip.family, ip.destination) else {
        return Reason::NotLocal;
    };
    let asked = match transport {
        Transport::LaterFragment => return Reason::LaterFragment,
        Transport::TcpEstablished => return Reason::TcpEstablished,
        Transport::IcmpReply => return Reason::IcmpReply,
        Transport::Tsmp => return Reason::Tsmp,
        Transport::Datagram { source_port, destination_port } => {
            if lookups.is_live(&reply_of(ip, source_port, destination_port)) {
                return Reason::Reply;
            }
            Asked::Point(PortRange::point(ip.protocol, u16::from_be_bytes(destination_port)))
        }
        Transport::TcpSyn { destination_port } => {
            Asked::Point(PortRange::point(ip.protocol, u16::from_be_bytes(destination_port)))
        }
        Transport::Portless => Asked::Point(PortRange::point(ip.protocol, 0)),
        Transport::Icmp => Asked::Any,
    };
    let Some(source) = lookups.source_class(generation, ip.family, ip.source) else { return Reason::Acl };
    match lookups.pair(PairKey { generation, source, destination }) {
        None => Reason::Acl,
        Some(span) => match asked {
            Asked::Any => Reason::Rule,
            Asked::Point(point) if contains(lookups, span, point) => Reason::Rule,
            Asked::Point(_) => Reason::Acl,
        },
    }
}

/// What a rule must open for the packet to pass.
enum Asked {
    /// Anything at all between the two addresses.
    Any,
    /// This point of [`PortRange`]'s line.
    Point(u32),
}

/// The transport header, as far as the filter cares. Ports in network order.
enum Transport {
    LaterFragment,
    TcpEstablished,
    TcpSyn { destination_port: [u8; 2] },
    Datagram { source_port: [u8; 2], destination_port: [u8; 2] },
    IcmpReply,
    Icmp,
    Tsmp,
    Portless,
}

impl Transport {
    /// A first fragment must hold the whole transport header, or later fragments could rewrite it (RFC 1858).
    #[inline(always)]
    fn read(ip: &Ip, frame: &impl Frame) -> Result<Self, Reason> {
        if matches!(ip.protocol, proto::HOP_BY_HOP | proto::RESERVED) {
            return Err(Reason::UnknownProtocol);
        }
        if ip.piece == Piece::Later {
            return Ok(Self::LaterFragment);
        }
        match (ip.protocol, ip.family) {
            (proto::TCP, _) => Self::tcp(ip, frame),
            (proto::UDP, _) => Self::datagram(ip, frame, 8),
            (proto::SCTP, _) => Self::datagram(ip, frame, 12),
            (proto::ICMP, Family::V4) => Self::icmp(ip, frame, |kind| matches!(kind, 3 | 11 | 12), 0),
            (proto::ICMPV6, Family::V6) => Self::icmp(ip, frame, |kind| matches!(kind, 1..=4), 129),
            (proto::TSMP, _) if ip.piece != Piece::Whole => Err(Reason::UnknownProtocol),
            (proto::TSMP, _) => at_least(ip, 7).map(|()| Self::Tsmp),
            (proto::IGMP, Family::V4) => at_least(ip, 8).map(|()| Self::Portless),
            _ => Ok(Self::Portless),
        }
    }

    #[inline(always)]
    fn tcp(ip: &Ip, frame: &impl Frame) -> Result<Self, Reason> {
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        at_least(ip, 20)?;
        let [ports, _, _, flags] = frame.words::<4>(ip.transport).ok_or(Reason::TooShort)?;
        if u32::from_be(flags) >> 16 & (SYN | ACK) != SYN {
            return Ok(Self::TcpEstablished);
        }
        let [_, _, high, low] = ports.to_ne_bytes();
        Ok(Self::TcpSyn { destination_port: [high, low] })
    }

    #[inline(always)]
    fn datagram(ip: &Ip, frame: &impl Frame, header: usize) -> Result<Self, Reason> {
        at_least(ip, header)?;
        let [ports] = frame.words::<1>(ip.transport).ok_or(Reason::TooShort)?;
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        Ok(Self::Datagram { source_port: [s0, s1], destination_port: [d0, d1] })
    }

    #[inline(always)]
    fn icmp(
        ip: &Ip,
        frame: &impl Frame,
        is_error: impl Fn(u32) -> bool,
        echo_reply: u32,
    ) -> Result<Self, Reason> {
        at_least(ip, 4)?;
        let [first] = frame.words::<1>(ip.transport).ok_or(Reason::TooShort)?;
        let (kind, code) = (u32::from_be(first) >> 24, u32::from_be(first) >> 16 & 0xff);
        let is_reply = is_error(kind) || (kind == echo_reply && code == 0);
        // An ICMP header has 8 bytes; a shorter one is no reply.
        Ok(if is_reply && ip.holds(8) { Self::IcmpReply } else { Self::Icmp })
    }
}

#[inline(always)]
const fn at_least(ip: &Ip, header: usize) -> Result<(), Reason> {
    if ip.holds(header) { Ok(()) } else { Err(Reason::TooShort) }
}

/// Binary search: whether a range of the span contains the point.
#[inline(always)]
fn contains(lookups: &impl Lookups, span: Span, point: u32) -> bool {
    let (mut low, mut high) = (0, span.count);
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            return false;
        }
        let middle = low + (high - low) / 2;
        let Some(range) = lookups.range(span.start.wrapping_add(middle)) else { return false };
        if point < range.first {
            high = middle;
        } else if point > range.last {
            low = middle + 1;
        } else {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    /// Senders 100.64.0.x have class x, receivers 100.64.1.x are local with class x; class 1 may reach class 1 on TCP
    /// and UDP 80 to 90, and with protocol 47; class 2 may reach class 1 with nothing but ICMP.
    struct Net {
        generation: u32,
        flow: bool,
    }

    const RANGES: [PortRange; 3] = [
        PortRange { first: PortRange::point(proto::TCP, 80), last: PortRange::point(proto::TCP, 90) },
        PortRange { first: PortRange::point(proto::UDP, 80), last: PortRange::point(proto::UDP, 90) },
        PortRange { first: PortRange::point(47, 0), last: PortRange::point(47, u16::MAX) },
    ];

    impl Lookups for Net {
        fn generation(&self) -> u32 {
            self.generation
        }
        fn source_class(&self, _: u32, _: Family, address: Address) -> Option<u32> {
            let [_, _, _, host] = address[0].to_ne_bytes();
            Some(u32::from(host))
        }
        fn destination_class(&self, _: u32, _: Family, address: Address) -> Option<u32> {
            let [_, _, net, host] = address[0].to_ne_bytes();
            (net == 1).then_some(u32::from(host))
        }
        fn pair(&self, key: PairKey) -> Option<Span> {
            match (key.source, key.destination) {
                (1, 1) => Some(Span { start: 0, count: 3 }),
                (2, 1) => Some(Span { start: 0, count: 0 }),
                _ => None,
            }
        }
        fn range(&self, position: u32) -> Option<PortRange> {
            RANGES.get(position as usize).copied()
        }
        fn is_live(&self, _: &FlowKey) -> bool {
            self.flow
        }
    }

    fn packet(protocol: u8, source: u8, destination: [u8; 2], edit: impl Fn(&mut [u8])) -> [u8; 40] {
        let mut packet = [0; 40];
        packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol]);
        packet[12..20].copy_from_slice(&[100, 64, 0, source, 100, 64, destination[0], destination[1]]);
        edit(&mut packet[20..]);
        packet
    }

    fn judge(net: &Net, packet: &[u8]) -> Reason {
        let frame = Bytes(packet);
        match Ip::parse(&frame) {
            Ok(ip) => decide(&ip, &frame, net),
            Err(reason) => reason,
        }
    }

    const NET: Net = Net { generation: 1, flow: false };

    fn port(port: u8) -> impl Fn(&mut [u8]) {
        move |transport| {
            transport[3] = port;
            transport[13] = 2;
        }
    }

    #[test]
    fn without_a_filter_nothing_comes_in() {
        let syn_ack = packet(proto::TCP, 1, [1, 1], |t| t[13] = 0x12);
        assert_eq!(judge(&NET, &syn_ack), Reason::TcpEstablished);
        assert_eq!(judge(&Net { generation: 0, flow: true }, &syn_ack), Reason::NoFilter);
    }

    #[test]
    fn a_connection_needs_a_rule_for_its_first_packet() {
        for (destination_port, want) in
            [(79, Reason::Acl), (80, Reason::Rule), (90, Reason::Rule), (91, Reason::Acl)]
        {
            assert_eq!(judge(&NET, &packet(proto::TCP, 1, [1, 1], port(destination_port))), want);
            assert_eq!(judge(&NET, &packet(proto::UDP, 1, [1, 1], port(destination_port))), want);
        }
        assert_eq!(judge(&NET, &packet(proto::TCP, 2, [1, 1], port(80))), Reason::Acl);
        assert_eq!(judge(&NET, &packet(proto::TCP, 1, [2, 1], port(80))), Reason::NotLocal);
    }

    #[test]
    fn replies_pass_where_the_flow_is_known() {
        let net = Net { generation: 1, flow: true };
        assert_eq!(judge(&net, &packet(proto::UDP, 9, [1, 9], port(1))), Reason::Reply);
        assert_eq!(judge(&net, &packet(proto::SCTP, 9, [1, 9], port(1))), Reason::Reply);
        assert_eq!(judge(&net, &packet(proto::TCP, 9, [1, 9], port(1))), Reason::Acl);
    }

    #[test]
    fn icmp_passes_where_anything_is_open() {
        let ping = |source| packet(proto::ICMP, source, [1, 1], |t| t[0] = 8);
        assert_eq!(judge(&NET, &ping(1)), Reason::Rule);
        assert_eq!(judge(&NET, &ping(2)), Reason::Rule);
        assert_eq!(judge(&NET, &ping(3)), Reason::Acl);
        for kind in [0, 3, 11, 12] {
            assert_eq!(judge(&NET, &packet(proto::ICMP, 3, [1, 1], |t| t[0] = kind)), Reason::IcmpReply);
        }
    }

    #[test]
    fn other_protocols_need_a_rule_for_all_ports() {
        assert_eq!(judge(&NET, &packet(47, 1, [1, 1], |_| ())), Reason::Rule);
        assert_eq!(judge(&NET, &packet(50, 1, [1, 1], |_| ())), Reason::Acl);
        assert_eq!(judge(&NET, &packet(proto::TSMP, 9, [1, 9], |_| ())), Reason::Tsmp);
        assert_eq!(judge(&NET, &packet(0, 1, [1, 1], |_| ())), Reason::UnknownProtocol);
        assert_eq!(judge(&NET, &packet(255, 1, [1, 1], |_| ())), Reason::UnknownProtocol);
    }

    #[test]
    fn a_first_fragment_must_hold_its_transport_header() {
        let mut short = packet(proto::TCP, 1, [1, 1], port(80));
        short[3] = 39;
        short[6] = 0x20;
        assert_eq!(judge(&NET, &short), Reason::TooShort);
        let mut tsmp = packet(proto::TSMP, 1, [1, 1], |_| ());
        tsmp[6] = 0x20;
        assert_eq!(judge(&NET, &tsmp), Reason::UnknownProtocol);
    }
}
