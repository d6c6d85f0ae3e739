//! DISCO messages and what the `disco` program makes of them: sealed by the code of userspace, which is checked against
//! Tailscale's bytes, and answers opened by it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;

use abi::{DiscoPeer, KeyWords, Reason};
use packet::Datagram;
use packet::crypto::{box_key, words};
use packet::disco::Disco;
use types::{DiscoPrivate, NodePublic};
use wire::disco::{CallMeMaybe, Message, Ping, Pong, TxId, open, seal};
use wire::nacl::SharedBox;

use crate::packets::{datagram, is_summed_up};

/// One packet and what becomes of it.
pub struct DiscoCase {
    /// What it shows.
    pub name: String,
    /// The packet, from its IP header on.
    pub packet: Vec<u8>,
    /// What the program says.
    pub want: Reason,
    /// Who must be able to open the answer, if there is one.
    pub sender: Sender,
}

/// Somebody who sends us DISCO messages.
#[derive(Clone)]
pub struct Sender {
    /// Its DISCO key.
    pub disco: DiscoPrivate,
    /// Its node key.
    pub node: NodePublic,
    /// Where it sends from.
    pub source: SocketAddr,
    /// Where we are.
    pub destination: SocketAddr,
}

/// WireGuard's port in the cases.
pub const PORT: u16 = 41_641;
/// The transaction of every ping.
pub const TX: TxId = TxId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

/// Our DISCO key.
pub fn ours() -> DiscoPrivate {
    DiscoPrivate::from_random([7; 32])
}

/// Who sends in the cases, by number: 1 is known and vouched for, 2 known only, others are strangers.
pub fn sender(tag: u8, v6: bool) -> Sender {
    let (source, destination) = match v6 {
        false => (format!("192.0.2.{tag}:4{tag:04}"), format!("198.51.100.1:{PORT}")),
        true => (format!("[2001:db8::{tag}]:4{tag:04}"), format!("[2001:db8:1::1]:{PORT}")),
    };
    Sender {
        disco: DiscoPrivate::from_random([tag; 32]),
        node: NodePublic::from_bytes([tag + 100; 32]),
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

/// What the loader would write for the known senders.
pub fn peers() -> HashMap<KeyWords, DiscoPeer> {
    let entry = |tag: u8, vouched| {
        let Sender { disco, node, .. } = sender(tag, false);
        let peer = DiscoPeer {
            shared: box_key(&ours().shared(&disco.public()).0),
            own: words(ours().public().as_bytes()),
            node: words(node.as_bytes()),
            bucket: abi::SOURCE_BUCKETS + u32::from(tag),
            vouched,
        };
        (words(disco.public().as_bytes()), peer)
    };
    HashMap::from([entry(1, 1), entry(2, 0)])
}

impl Sender {
    /// A message of this sender to us, sealed.
    pub fn message(&self, message: &Message) -> Vec<u8> {
        seal(&self.disco.public(), &self.shared(), [self.source.port() as u8; 24], message)
    }

    /// A ping as stock clients send it.
    pub fn ping(&self) -> Vec<u8> {
        self.message(&Message::Ping(Ping { tx_id: TX, node_key: Some(self.node), padding: 0 }))
    }

    /// The packet that carries a payload of this sender.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        datagram(64, self.source, self.destination, payload)
    }

    /// Asserts that `packet` is the pong of this sender's ping, and gives its nonce.
    pub fn check_pong(&self, packet: &[u8], name: &str) -> [u8; 24] {
        assert!(is_summed_up(packet), "{name}: wrong checksum in {packet:02x?}");
        let header = if self.source.is_ipv4() { 28 } else { 48 };
        let payload = &packet[header..];
        assert_eq!(packet, without_id(datagram(64, self.destination, self.source, payload)), "{name}");
        let message = open(&self.shared(), payload).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(wire::disco::sender(payload), Some(ours().public()), "{name}");
        assert_eq!(message, Message::Pong(Pong { tx_id: TX, source: self.source }), "{name}");
        std::array::from_fn(|at| payload[38 + at])
    }

    fn shared(&self) -> SharedBox {
        SharedBox::disco(&self.disco, &ours().public())
    }
}

/// The header that an answer has: "do not fragment".
fn without_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[6] = 0x40;
        crate::packets::sum_up(&mut packet);
    }
    packet
}

/// Every case.
pub fn disco() -> Vec<DiscoCase> {
    [false, true].into_iter().flat_map(of_family).collect()
}

fn of_family(v6: bool) -> Vec<DiscoCase> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let case = |name: &str, sender: &Sender, payload: &[u8], want| DiscoCase {
        name: format!("{family}: {name}"),
        packet: sender.packet(payload),
        want,
        sender: sender.clone(),
    };
    let (known, unvouched, stranger) = (sender(1, v6), sender(2, v6), sender(3, v6));
    let ping = |node_key, padding| Message::Ping(Ping { tx_id: TX, node_key, padding });
    let (answered, left) = (Reason::PingAnswered, Reason::ForController);
    let impostor = Sender { disco: stranger.disco.clone(), ..known.clone() };
    let mut under_known_key = impostor.ping();
    under_known_key[6..38].copy_from_slice(known.disco.public().as_bytes());
    let other_kind = [&[4, 0][..], &[9; 44]].concat();
    let mut cases = vec![
        case("a ping of a known peer", &known, &known.ping(), answered),
        case("the same ping once more", &known, &known.ping(), answered),
        case("a peer nobody vouches for", &unvouched, &unvouched.ping(), left),
        case("a stranger", &stranger, &stranger.ping(), left),
        case("a ping under a known key that is not its own", &known, &under_known_key, left),
        case("another node's key", &known, &known.message(&ping(Some(stranger.node), 0)), left),
        case("no node key", &known, &known.message(&ping(None, 0)), left),
        case("zeros for a node key", &known, &known.message(&ping(None, 32)), left),
        case("padding", &known, &known.message(&ping(Some(known.node), 1)), left),
        case("a large probe", &known, &known.message(&ping(Some(known.node), 1000)), left),
        case(
            "a pong",
            &known,
            &known.message(&Message::Pong(Pong { tx_id: TX, source: known.source })),
            left,
        ),
        case(
            "a call",
            &known,
            &known.message(&Message::CallMeMaybe(CallMeMaybe { endpoints: vec![known.source; 2] })),
            left,
        ),
        case("a message of a ping's size that is none", &known, &known.raw(&other_kind), left),
    ];
    for at in (38..124).step_by(5) {
        let mut forged = known.ping();
        forged[at] ^= 0x20;
        cases.push(case(&format!("byte {at} changed"), &known, &forged, left));
    }
    let nowhere: &[&str] = if v6 {
        &["[::]:5", "[::1]:5", "[ff02::1]:5", "[2001:db8::1]:0"]
    } else {
        &["0.0.0.0:5", "127.0.0.1:5", "224.0.0.1:5", "255.255.255.255:5", "192.0.2.1:0"]
    };
    for source in nowhere {
        let spoofed = Sender { source: source.parse().expect("an address"), ..known.clone() };
        cases.push(case(&format!("from {source}"), &spoofed, &spoofed.ping(), left));
    }
    let group = if v6 { "[ff02::1]" } else { "224.0.0.1" };
    let destination = format!("{group}:{PORT}").parse().expect("an address");
    let to_group = Sender { destination, ..known };
    cases.push(case("to a group", &to_group, &to_group.ping(), left));
    cases
}

impl Sender {
    /// A box with this inside, which need not be a message.
    fn raw(&self, plain: &[u8]) -> Vec<u8> {
        let mut packet = wire::disco::MAGIC.to_vec();
        packet.extend_from_slice(self.disco.public().as_bytes());
        self.shared().seal([5; 24], plain, &mut packet);
        packet
    }
}

/// The maps of the program, on the host.
pub struct DiscoHost {
    peers: HashMap<KeyWords, DiscoPeer>,
    /// Tokens left in each bucket that was asked for.
    pub tokens: RefCell<HashMap<u32, u32>>,
    nonces: Cell<u32>,
    /// What was told to the controller.
    pub reports: RefCell<Vec<(KeyWords, Datagram, [u32; 3])>>,
}

impl Default for DiscoHost {
    fn default() -> Self {
        Self { peers: peers(), tokens: RefCell::default(), nonces: Cell::new(0), reports: RefCell::default() }
    }
}

impl Disco for DiscoHost {
    fn peer(&self, key: &KeyWords) -> Option<&DiscoPeer> {
        self.peers.get(key)
    }

    fn take(&self, bucket: u32) -> bool {
        let mut tokens = self.tokens.borrow_mut();
        let left = tokens.entry(bucket).or_insert(100);
        *left = left.saturating_sub(1);
        *left > 0
    }

    fn seed(&self) -> u32 {
        7
    }

    fn nonce(&self) -> Option<[u32; 6]> {
        self.nonces.set(self.nonces.get() + 1);
        Some([1, 2, 3, 4, self.nonces.get(), 0])
    }

    fn report(&self, key: &KeyWords, datagram: &Datagram, tx_id: [u32; 3]) {
        self.reports.borrow_mut().push((*key, *datagram, tx_id));
    }
}
