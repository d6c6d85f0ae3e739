//! Binding requests and what the `stun` program makes of them: the 28 cases of Tailscale's program
//! (`derp/xdp/xdp_linux_test.go`), and ours.

use std::cell::Cell;
use std::net::SocketAddr;

use abi::{Address, Family, Reason};
use packet::Stun;
use wire::stun::{TxId, encode_request, encode_response};

use crate::packets::{datagram, framed, sum_up};

/// One frame and what becomes of it.
pub struct StunCase {
    /// What it shows.
    pub name: &'static str,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Whether the server is in maintenance.
    pub dropping: bool,
    /// What the program says.
    pub want: Reason,
    /// What is sent out, where something is.
    pub answer: Option<Vec<u8>>,
}

/// The port of the cases.
pub const STUN_PORT: u16 = 3478;
const TX: TxId = TxId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
const CLIENT_MAC: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 1];
const OUR_MAC: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 2];

/// A client and us, in each family.
pub fn addresses() -> [(SocketAddr, SocketAddr); 2] {
    [("192.0.2.1:1025", "192.0.2.2:3478"), ("[2001:db8::1]:1025", "[2001:db8::2]:3478")]
        .map(|(client, us)| (socket(client), socket(us)))
}

/// A client's request as a frame.
pub fn request(client: SocketAddr, us: SocketAddr) -> Vec<u8> {
    framed(OUR_MAC, CLIENT_MAC, &datagram(64, client, us, &encode_request(TX)))
}

/// The answer of our server in userspace, as a frame.
pub fn answer_to(client: SocketAddr, us: SocketAddr) -> Vec<u8> {
    framed(CLIENT_MAC, OUR_MAC, &datagram(64, us, client, &encode_response(TX, client)))
}

/// Where things are in a frame, by family: IP header, UDP header, STUN message.
const fn layout(client: SocketAddr) -> (usize, usize, usize) {
    if client.is_ipv4() { (14, 34, 42) } else { (14, 54, 62) }
}

/// Every case.
pub fn stun() -> Vec<StunCase> {
    let mut cases = Vec::new();
    for (client, us) in addresses() {
        cases.extend(of_tailscale(client, us));
        cases.extend(ours(client, us));
    }
    cases
}

fn of_tailscale(client: SocketAddr, us: SocketAddr) -> Vec<StunCase> {
    let (ip, udp, message) = layout(client);
    let plain = request(client, us);
    let answer = Some(answer_to(client, us));
    let mut cases = vec![
        StunCase {
            name: "maintenance",
            frame: plain.clone(),
            dropping: true,
            want: Reason::StunMaintenance,
            answer: None,
        },
        StunCase {
            name: "a request",
            frame: plain.clone(),
            dropping: false,
            want: Reason::StunAnswered,
            answer: answer.clone(),
        },
    ];
    let mut passes = |name, edit: &dyn Fn(&mut [u8])| {
        let mut frame = plain.clone();
        edit(&mut frame);
        cases.push(StunCase { name, frame, dropping: false, want: Reason::StunOther, answer: None });
    };
    // Edits of the message come before the checksum, edits of headers behind it.
    let in_message = |at: usize| {
        move |frame: &mut [u8]| {
            frame[message + at] ^= 0xff;
            sum_up(&mut frame[14..]);
        }
    };
    passes("a wrong UDP checksum", &|frame| frame[udp + 7] ^= 1);
    passes("another STUN type", &in_message(1));
    passes("another cookie", &in_message(4));
    passes("a wrong length of attributes", &in_message(2));
    passes("another software's name", &in_message(24));
    passes("another first attribute", &in_message(21));
    if client.is_ipv4() {
        passes("a wrong IP checksum", &|frame| frame[ip + 11] ^= 1);
        passes("an IP header of no length", &|frame| frame[ip] &= 0xf0);
        passes("no IP version", &|frame| frame[ip] &= 0x0f);
        passes("TCP", &|frame| frame[ip + 9] = 6);
        passes("a later fragment", &|frame| {
            frame[ip + 7] = 1;
            sum_up(&mut frame[14..]);
        });
        passes("a first fragment", &|frame| {
            frame[ip + 6] = 0x20;
            sum_up(&mut frame[14..]);
        });
        passes("an IP length past the end", &|frame| {
            frame[ip + 3] += 1;
            sum_up(&mut frame[14..]);
        });
        let mut frame = plain.clone();
        frame[udp + 6..udp + 8].fill(0);
        let name = "without a UDP checksum";
        cases.push(StunCase { name, frame, dropping: false, want: Reason::StunAnswered, answer });
    } else {
        passes("no IP version", &|frame| frame[ip] &= 0x0f);
        passes("TCP", &|frame| frame[ip + 6] = 6);
        passes("an IP length past the end", &|frame| frame[ip + 5] += 1);
        passes("without a UDP checksum", &|frame| frame[udp + 6..udp + 8].fill(0));
    }
    cases
}

fn ours(client: SocketAddr, us: SocketAddr) -> Vec<StunCase> {
    let (ip, udp, message) = layout(client);
    let plain = request(client, us);
    let mut cases = Vec::new();
    let mut passes = |name, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = plain.clone();
        edit(&mut frame);
        cases.push(StunCase { name, frame, dropping: false, want: Reason::StunOther, answer: None });
    };
    passes("a wrong fingerprint", &|frame| {
        frame[message + 39] ^= 1;
        sum_up(&mut frame[14..]);
    });
    passes("an attribute more", &|frame| {
        frame.extend([0x80, 0x29, 0, 0]);
        let grown = [(message + 3, 4), (udp + 5, 4), (if client.is_ipv4() { ip + 3 } else { ip + 5 }, 4)];
        grown.iter().for_each(|(at, more)| frame[*at] += more);
        sum_up(&mut frame[14..]);
    });
    passes("from port zero", &|frame| {
        frame[udp..udp + 2].fill(0);
        sum_up(&mut frame[14..]);
    });
    passes("a checksum left to the device", &|frame| {
        // What is left in the field then is the sum of the pseudo header, not complemented.
        let packet = frame.split_off(14);
        frame.extend(partially_summed(packet));
    });
    let bogus: &[&str] = if client.is_ipv4() {
        &["0.0.0.0:9", "127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9"]
    } else {
        &["[::]:9", "[::1]:9", "[ff02::1]:9", "[::ffff:192.0.2.1]:9"]
    };
    for source in bogus {
        cases.push(StunCase {
            name: "from an address that is no client's",
            frame: request(socket(source), us),
            dropping: false,
            want: Reason::StunOther,
            answer: None,
        });
    }
    let elsewhere = SocketAddr::new(other(us), STUN_PORT);
    for dropping in [false, true] {
        cases.push(StunCase {
            name: "to somebody whose packets we route",
            frame: request(client, elsewhere),
            dropping,
            want: Reason::StunOther,
            answer: None,
        });
    }
    cases
}

/// An address that is not ours.
fn other(us: SocketAddr) -> std::net::IpAddr {
    if us.is_ipv4() { [192, 0, 2, 3].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 3].into() }
}

/// A packet as a sender leaves it that lets its device sum it up.
pub fn partially_summed(mut packet: Vec<u8>) -> Vec<u8> {
    let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let addresses = if start == 20 { 12..20 } else { 8..40 };
    let head = [&packet[addresses], &[0, 17], &packet[start + 4..start + 6]].concat();
    let sum = crate::packets::ones_complement(&head);
    packet[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

/// What the program knows, on the host.
pub struct StunHost {
    /// Whether the server is in maintenance.
    pub dropping: bool,
    /// Answers left.
    pub tokens: Cell<u32>,
}

impl Stun for StunHost {
    fn is_own(&self, address: &Address, family: Family) -> bool {
        addresses().iter().any(|(_, us)| crate::packets::address_of(us.ip()) == (family, *address))
    }

    fn is_dropping(&self) -> bool {
        self.dropping
    }

    fn take(&self, _: &Address, _: Family) -> bool {
        let left = self.tokens.get();
        self.tokens.set(left.saturating_sub(1));
        left > 0
    }
}
