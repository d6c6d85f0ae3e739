//! The gateway from outside: what packets become between the tunnel and a LAN, requirement by requirement (RFC 4787, 5382,
//! 5508, 7857). Needs root. `docs/gateway.md` has the table.

use dataplane::{Filtering, NAT_PORTS, Program, Reason};
use programs::gateway::{
    Gateway, HOST, HOST6, OTHER_HOST, OTHER_PEER, OUTER, OUTER6, PEER, PEER6, at, icmp, seen, tcp, udp,
    with_gateway,
};

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 4;

/// Sends a datagram out and says which outer port it left by.
fn outer_port(gateway: &Gateway, source: (&str, u16), destination: (&str, u16)) -> u16 {
    gateway.from_tunnel(&udp(source, destination, b"out"));
    let left = seen(&gateway.to_lan("a datagram"));
    assert_eq!(left.source.0, at(OUTER, 0).0);
    assert_eq!(left.destination, at(destination.0, destination.1));
    left.source.1
}

#[test]
fn a_flow_is_translated_both_ways_and_its_later_packets_take_the_short_way() {
    with_gateway("a_flow_is_translated_both_ways_and_its_later_packets_take_the_short_way", |gateway| {
        for (peer, host, outer) in [(PEER, HOST, OUTER), (PEER6, HOST6, OUTER6)] {
            let before = gateway.count(Program::FromTunnel, Reason::Forwarded);
            for turn in 0..3 {
                gateway.from_tunnel(&udp((peer, 20_000), (host, 53), b"query"));
                let left = seen(&gateway.to_lan("the query"));
                assert_eq!(left.source, at(outer, 20_000), "a port in the range is kept");
                assert_eq!(left.hops, 63);
                let short = gateway.count(Program::FromTunnel, Reason::Forwarded) - before;
                assert_eq!(short, turn, "all but the first take the short way");

                gateway.from_lan(&udp((host, 53), (outer, 20_000), b"a longer answer"));
                let came = seen(&gateway.to_tunnel("the answer"));
                assert_eq!((came.source, came.destination), (at(host, 53), at(peer, 20_000)));
                assert_eq!(came.hops, 63);
            }
        }
        assert_eq!(gateway.count(Program::ToTunnel, Reason::Forwarded), 6);
    });
}

#[test]
fn without_hiding_packets_keep_their_addresses_and_take_the_short_way() {
    with_gateway("without_hiding_packets_keep_their_addresses_and_take_the_short_way", |gateway| {
        gateway.hide_nobody();
        for _ in 0..3 {
            gateway.from_tunnel(&udp((PEER, 5000), (HOST, 53), b"query"));
            assert_eq!(seen(&gateway.to_lan("the query")).source, at(PEER, 5000));
            gateway.from_lan(&udp((HOST, 53), (PEER, 5000), b"answer"));
            assert_eq!(seen(&gateway.to_tunnel("the answer")).destination, at(PEER, 5000));
        }
        assert_eq!(gateway.count(Program::FromTunnel, Reason::Forwarded), 2);
        assert_eq!(gateway.count(Program::ToTunnel, Reason::Forwarded), 3);
        // And what begins on the LAN side.
        for _ in 0..3 {
            gateway.from_lan(&udp((HOST, 7000), (OTHER_PEER, 7001), b"hello"));
            assert_eq!(seen(&gateway.to_tunnel("hello")).source, at(HOST, 7000));
            gateway.from_tunnel(&udp((OTHER_PEER, 7001), (HOST, 7000), b"hello"));
            assert_eq!(seen(&gateway.to_lan("hello back")).source, at(OTHER_PEER, 7001));
        }
        assert_eq!(gateway.count(Program::FromTunnel, Reason::Forwarded), 5);
        assert_eq!(gateway.count(Program::ToTunnel, Reason::Forwarded), 5);
    });
}

#[test]
fn rfc4787_req1_an_inner_endpoint_has_one_outer_port_whomever_it_speaks_to() {
    with_gateway("rfc4787_req1_an_inner_endpoint_has_one_outer_port", |gateway| {
        let port = outer_port(gateway, (PEER, 40_001), (HOST, 53));
        assert!(NAT_PORTS.contains(&port));
        assert_eq!(outer_port(gateway, (PEER, 40_001), (HOST, 54)), port);
        assert_eq!(outer_port(gateway, (PEER, 40_001), (OTHER_HOST, 53)), port);
    });
}

#[test]
fn rfc4787_req3_no_outer_port_serves_two_inner_endpoints() {
    with_gateway("rfc4787_req3_no_outer_port_serves_two_inner_endpoints", |gateway| {
        let mut ports = std::collections::BTreeSet::new();
        for source in [(PEER, 20_000), (OTHER_PEER, 20_000), (PEER, 20_000 + 16_384), (PEER, 20_000 - 16_384)]
        {
            assert!(ports.insert(outer_port(gateway, source, (HOST, 53))), "{source:?}");
        }
    });
}

#[test]
fn rfc4787_req4_parity_is_kept() {
    with_gateway("rfc4787_req4_parity_is_kept", |gateway| {
        for port in [1024, 1025, 20_000, 20_001, 40_000, 40_001, 65_534, 65_535] {
            for peer in [PEER, OTHER_PEER] {
                assert_eq!(outer_port(gateway, (peer, port), (HOST, 53)) % 2, port % 2, "{peer} {port}");
            }
        }
    });
}

#[test]
fn rfc4787_req8_filtering_lets_in_whom_it_should() {
    with_gateway("rfc4787_req8_filtering_lets_in_whom_it_should", |gateway| {
        for (filtering, other_port, stranger) in [
            (Filtering::AddressAndPortDependent, false, false),
            (Filtering::AddressDependent, true, false),
            (Filtering::EndpointIndependent, true, true),
        ] {
            gateway.change(|plan| plan.filtering = filtering);
            let inner = 21_000 + filtering as u16;
            let port = outer_port(gateway, (PEER, inner), (HOST, 53));
            for (from, comes) in [((HOST, 53), true), ((HOST, 54), other_port), ((OTHER_HOST, 53), stranger)]
            {
                gateway.from_lan(&udp(from, (OUTER, port), b"in"));
                if comes {
                    let came = seen(&gateway.to_tunnel("what the filtering lets in"));
                    assert_eq!((came.source, came.destination), (at(from.0, from.1), at(PEER, inner)));
                } else {
                    gateway.nothing_to_tunnel("what the filtering keeps out");
                    gateway.nothing_to_lan("an answer to what the filtering keeps out");
                }
            }
        }
        assert_eq!(gateway.count(Program::ToTunnel, Reason::NotAsked), 3);
    });
}

#[test]
fn cve_2021_3773_a_port_of_this_machine_is_never_given_out() {
    with_gateway("cve_2021_3773_a_port_of_this_machine_is_never_given_out", |gateway| {
        let _udp = std::net::UdpSocket::bind(("0.0.0.0", 22_222)).expect("free in a namespace of its own");
        let _tcp = std::net::TcpListener::bind(("0.0.0.0", 22_224)).expect("free in a namespace of its own");
        let port = outer_port(gateway, (PEER, 22_222), (HOST, 53));
        assert_ne!(port, 22_222);
        gateway.from_tunnel(&tcp((PEER, 22_224), (HOST, 80), SYN));
        assert_ne!(seen(&gateway.to_lan("a SYN")).source.1, 22_224);
    });
}

#[test]
fn rfc5382_req1_a_connection_is_carried_from_its_first_to_its_last_packet() {
    with_gateway("rfc5382_req1_a_connection_is_carried", |gateway| {
        let (peer, host) = ((PEER, 45_678), (HOST, 80));
        gateway.from_tunnel(&tcp(peer, host, SYN));
        let port = seen(&gateway.to_lan("the SYN")).source.1;
        gateway.from_lan(&tcp(host, (OUTER, port), SYN_ACK));
        assert_eq!(seen(&gateway.to_tunnel("the SYN-ACK")).destination, at(PEER, 45_678));
        let before = gateway.count(Program::FromTunnel, Reason::Forwarded);
        for flags in [ACK, ACK | 8, ACK | 1] {
            gateway.from_tunnel(&tcp(peer, host, flags));
            assert_eq!(seen(&gateway.to_lan("a segment")).source.1, port);
            gateway.from_lan(&tcp(host, (OUTER, port), flags));
            assert_eq!(seen(&gateway.to_tunnel("a segment")).destination.1, 45_678);
        }
        gateway.from_lan(&tcp(host, (OUTER, port), RST));
        assert_eq!(seen(&gateway.to_tunnel("the reset")).destination.1, 45_678);
        assert_eq!(gateway.count(Program::FromTunnel, Reason::Forwarded) - before, 3);
    });
}

#[test]
fn rfc5382_req2_a_simultaneous_open_comes_through() {
    with_gateway("rfc5382_req2_a_simultaneous_open_comes_through", |gateway| {
        let (peer, host) = ((PEER, 20_100), (HOST, 8080));
        gateway.from_tunnel(&tcp(peer, host, SYN));
        assert_eq!(seen(&gateway.to_lan("our SYN")).source, at(OUTER, 20_100));
        gateway.from_lan(&tcp(host, (OUTER, 20_100), SYN));
        assert_eq!(seen(&gateway.to_tunnel("their SYN")).destination, at(PEER, 20_100));
        gateway.from_tunnel(&tcp(peer, host, SYN_ACK));
        assert_eq!(seen(&gateway.to_lan("our SYN-ACK")).source, at(OUTER, 20_100));
        gateway.from_lan(&tcp(host, (OUTER, 20_100), SYN_ACK));
        assert_eq!(seen(&gateway.to_tunnel("their SYN-ACK")).destination, at(PEER, 20_100));
    });
}

#[test]
fn rfc5382_req4_an_unasked_syn_is_not_answered() {
    with_gateway("rfc5382_req4_an_unasked_syn_is_not_answered", |gateway| {
        gateway.from_tunnel(&tcp((PEER, 20_100), (HOST, 8080), SYN));
        gateway.to_lan("our SYN");
        gateway.from_lan(&tcp((OTHER_HOST, 8080), (OUTER, 20_100), SYN));
        gateway.nothing_to_tunnel("an unasked SYN");
        gateway.nothing_to_lan("an answer to it");
    });
}

#[test]
fn rfc5508_req1_echo_requests_are_mapped_like_datagrams() {
    with_gateway("rfc5508_req1_echo_requests_are_mapped_like_datagrams", |gateway| {
        for (peer, host, outer, request, reply) in
            [(PEER, HOST, OUTER, 8, 0), (PEER6, HOST6, OUTER6, 128, 129)]
        {
            for turn in 0..2 {
                gateway.from_tunnel(&icmp(peer, host, [request, 0], [0x12, 0x34, 0, turn], b"ping"));
                let left = gateway.to_lan("the request");
                assert_eq!(seen(&left).source.0, at(outer, 0).0);
                let at_id = if peer == PEER { 24 } else { 44 };
                let id: [u8; 2] = [left[at_id], left[at_id + 1]];
                assert!(NAT_PORTS.contains(&u16::from_be_bytes(id)));
                gateway.from_lan(&icmp(host, outer, [reply, 0], [id[0], id[1], 0, turn], b"ping"));
                let came = gateway.to_tunnel("the reply");
                assert_eq!(seen(&came).destination.0, at(peer, 0).0);
                assert_eq!(came[at_id..at_id + 2], [0x12, 0x34]);
            }
        }
    });
}

/// RFC 5508 REQ-3 and REQ-4: an error about a translated packet reaches its sender, the packet inside turned back.
#[test]
fn rfc5508_req4_errors_come_back_with_their_inner_packet_turned() {
    with_gateway("rfc5508_req4_errors_come_back_with_their_inner_packet_turned", |gateway| {
        for (peer, host, outer, kind) in [(PEER, HOST, OUTER, [3, 3]), (PEER6, HOST6, OUTER6, [1, 4])] {
            let sent = udp((peer, 40_000), (host, 53), b"to nobody");
            gateway.from_tunnel(&sent);
            let left = gateway.to_lan("a datagram");
            gateway.from_lan(&icmp(host, outer, kind, [0; 4], &left));
            let came = gateway.to_tunnel("the error");
            assert_eq!(seen(&came).destination.0, at(peer, 0).0);
            let header = if peer == PEER { 28 } else { 48 };
            let inner = seen(&came[header..]);
            assert_eq!((inner.source, inner.destination), (at(peer, 40_000), at(host, 53)));
        }
    });
}

#[test]
fn rfc5508_req5_errors_from_inside_leave_by_the_outer_address() {
    with_gateway("rfc5508_req5_errors_from_inside_leave_by_the_outer_address", |gateway| {
        let port = outer_port(gateway, (PEER, 40_000), (HOST, 53));
        let answer = udp((HOST, 53), (OUTER, port), b"too late");
        gateway.from_lan(&answer);
        let came = gateway.to_tunnel("the answer");
        gateway.from_tunnel(&icmp(PEER, HOST, [3, 3], [0; 4], &came));
        let left = gateway.to_lan("the error");
        assert_eq!(seen(&left).source.0, at(OUTER, 0).0);
        let inner = seen(&left[28..]);
        assert_eq!((inner.source, inner.destination), (at(HOST, 53), at(OUTER, port)));
    });
}

/// What the stack itself says about a packet too large for the tunnel must name the outer endpoint, or the sender would
/// not know which connection it is about.
#[test]
fn row_16_a_packet_too_big_for_the_tunnel_is_answered_in_the_senders_terms() {
    with_gateway("row_16_a_packet_too_big_for_the_tunnel_is_answered", |gateway| {
        for (peer, host, outer) in [(PEER, HOST, OUTER), (PEER6, HOST6, OUTER6)] {
            gateway.from_tunnel(&udp((peer, 20_500), (host, 53), b"query"));
            gateway.to_lan("the query");
            let mut large = udp((host, 53), (outer, 20_500), &[7; 1400]);
            if peer == PEER {
                large[6] |= 0x40;
                large = programs::sums::filled(large);
            }
            gateway.from_lan(&large);
            let error = gateway.to_lan("packet too big");
            assert_eq!(seen(&error).destination.0, at(host, 0).0);
            let (header, mtu) = if peer == PEER { (28, &error[26..28]) } else { (48, &error[46..48]) };
            assert_eq!(u16::from_be_bytes([mtu[0], mtu[1]]), 1280);
            let inner = &error[header..];
            let port_at = if peer == PEER { 20 } else { 40 };
            assert_eq!(inner[port_at + 2..port_at + 4], 20_500u16.to_be_bytes());
            let address = if peer == PEER { &inner[16..20] } else { &inner[24..40] };
            let want: Vec<u8> = match at(outer, 0).0 {
                std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            assert_eq!(address, want);
            gateway.nothing_to_tunnel("what is too large");
        }
    });
}

/// The fragments of a datagram from the tunnel: what each carries, in the order given.
fn fragments(whole: &[u8], size: usize) -> Vec<Vec<u8>> {
    let payload = &whole[20..];
    let pieces = payload.chunks(size).enumerate().map(|(at, piece)| {
        let mut head = whole[..20].to_vec();
        let is_last = (at + 1) * size >= payload.len();
        let field = (at * size / 8) as u16 | if is_last { 0 } else { 0x2000 };
        head[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        head[4..6].copy_from_slice(&[0xab, 0xcd]);
        head[6..8].copy_from_slice(&field.to_be_bytes());
        head[10..12].fill(0);
        let sum = head.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        [head, piece.to_vec()].concat()
    });
    pieces.collect()
}

#[test]
fn rfc4787_req14_fragments_out_of_the_tunnel_are_translated_in_any_order() {
    with_gateway("rfc4787_req14_fragments_out_of_the_tunnel", |gateway| {
        let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let whole = udp((PEER, 41_000), (HOST, 53), &payload);
        let port = outer_port(gateway, (PEER, 41_000), (HOST, 53));
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let pieces = fragments(&whole, 1200);
            order.iter().for_each(|at| gateway.from_tunnel(&pieces[*at]));
            let mut datagram = Vec::new();
            while datagram.len() < 8 + payload.len() {
                let piece = gateway.to_lan("a fragment");
                assert_eq!(piece[12..16], [192, 168, 5, 1], "{order:?}");
                datagram.extend_from_slice(&piece[20..]);
            }
            let mut head = whole[..20].to_vec();
            head[12..16].copy_from_slice(&[192, 168, 5, 1]);
            let left = programs::sums::filled([head, datagram.clone()].concat());
            assert_eq!(left[20..], datagram, "the UDP checksum is right: {order:?}");
            assert_eq!(datagram[..2], port.to_be_bytes());
            assert_eq!(datagram[8..], payload);
        }
    });
}

#[test]
fn row_14_a_peer_without_places_is_refused_with_icmp_and_what_is_open_stays() {
    with_gateway("row_14_a_peer_without_places_is_refused", |gateway| {
        // Four for each region of peers, 128 for all.
        gateway.change(|plan| plan.places = 256);
        let port = outer_port(gateway, (PEER, 20_000), (HOST, 53));
        let mut opened = 0;
        let refusal = loop {
            opened += 1;
            assert!(opened < 256, "never refused");
            gateway.from_tunnel(&udp((OTHER_PEER, 20_002), (HOST, opened), b""));
            if gateway.count(Program::FromTunnel, Reason::SessionRefused) != 0 {
                break gateway.to_tunnel("a refusal");
            }
            gateway.to_lan("a new flow");
        };
        assert!(opened > 100, "only {opened}");
        assert_eq!((seen(&refusal).destination.0, &refusal[20..22]), (at(OTHER_PEER, 0).0, &[3, 13][..]));
        gateway.from_lan(&udp((HOST, 53), (OUTER, port), b"still here"));
        assert_eq!(seen(&gateway.to_tunnel("the open flow's answer")).destination, at(PEER, 20_000));
        gateway.from_tunnel(&udp((PEER, 20_000), (HOST, 54), b"a second flow"));
        assert_eq!(seen(&gateway.to_lan("another peer's new flow")).source, at(OUTER, 20_000));
    });
}

/// Nanoseconds a packet, printed: what the short way costs without devices. A run rewrites its packet, so each is a run of
/// its own; the least of many, since other work on the machine only ever adds. The clock is in it.
#[test]
fn what_the_short_way_costs() {
    with_gateway("what_the_short_way_costs", |gateway| {
        let (query, answer) = ((PEER, 20_000), (HOST, 53));
        let port = outer_port(gateway, query, answer);
        let out = programs::packets::ethernet(&udp(query, answer, &[0; 22]));
        let back = programs::packets::ethernet(&udp(answer, (OUTER, port), &[0; 22]));
        for (program, packet) in [(Program::FromTunnel, &out), (Program::ToTunnel, &back)] {
            let before = gateway.count(program, Reason::Forwarded);
            let runs = 2000;
            let least = (0..runs).map(|_| {
                let (code, time) =
                    gateway.programs.test_run(program, packet, 1).expect("the kernel runs the packet");
                assert_eq!(code, 7, "redirected");
                time
            });
            let least = least.min().expect("more than none");
            assert_eq!(gateway.count(program, Reason::Forwarded) - before, runs);
            println!("{}: {} ns a translated packet", program.name(), least.as_nanos());
        }
        let stray = programs::packets::ethernet(&udp((HOST, 9), (OUTER, 9), &[0; 22]));
        let stray =
            (0..2000).map(|_| gateway.programs.test_run(Program::ToTunnel, &stray, 1).expect("runs").1);
        println!("to_tunnel: {} ns a packet of nobody", stray.min().expect("more than none").as_nanos());
    });
}
