//! What arrives on WireGuard's port and what `shield` makes of it.

use abi::Reason;
use blake2::digest::{Digest as _, FixedOutput as _, KeyInit as _, Update as _, consts::U16};
use blake2::{Blake2s256, Blake2sMac};
use types::NodePublic;

/// One UDP payload and what becomes of it.
pub struct ShieldCase {
    /// What it shows.
    pub name: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// What the program says; none if it is none of its business.
    pub want: Option<Reason>,
}

/// Our node key in the cases.
pub fn ours() -> NodePublic {
    NodePublic::from_bytes([0x5a; 32])
}

/// A handshake message of this type for the owner of `key`, as far as its first MAC goes (WireGuard paper, section 5.4.4).
pub fn handshake(kind: u8, len: usize, key: &NodePublic) -> Vec<u8> {
    let mut message: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let mac_key = Blake2s256::new().chain_update(b"mac1----").chain_update(key.as_bytes()).finalize();
    let mut mac = Blake2sMac::<U16>::new_from_slice(&mac_key).expect("a key of 32 bytes");
    mac.update(&message[..len - 32]);
    message[len - 32..len - 16].copy_from_slice(&mac.finalize_fixed());
    message
}

/// Every case.
pub fn shield() -> Vec<ShieldCase> {
    let mut cases = Vec::new();
    let mut case = |name: String, payload: Vec<u8>, want| cases.push(ShieldCase { name, payload, want });
    for (kind, len) in [(1, 148), (2, 92)] {
        let good = handshake(kind, len, &ours());
        case(format!("type {kind} for us"), good.clone(), Some(Reason::Handshake));
        let other = handshake(kind, len, &NodePublic::from_bytes([1; 32]));
        case(format!("type {kind} for another key"), other, Some(Reason::BadMac1));
        for at in (4..len - 16).step_by(9) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            case(format!("type {kind}, byte {at} changed"), bad, Some(Reason::BadMac1));
        }
        let mut cookie = good.clone();
        cookie[len - 16..].fill(0xcc);
        case(format!("type {kind} with a cookie"), cookie, Some(Reason::Handshake));
        case(format!("type {kind}, longer"), [&good[..], &[0]].concat(), Some(Reason::WrongSize));
        case(format!("type {kind}, shorter"), good[..len - 1].to_vec(), Some(Reason::WrongSize));
    }
    let of = |kind: u8, len: usize| [&[kind, 0, 0, 0][..], &vec![7; len - 4]].concat();
    case("a cookie reply".into(), of(3, 64), None);
    case("a cookie reply of another size".into(), of(3, 65), Some(Reason::WrongSize));
    case("a keepalive".into(), of(4, 32), None);
    case("data".into(), of(4, 1200), None);
    case("data too short".into(), of(4, 31), Some(Reason::WrongSize));
    case("a header of data".into(), of(4, 20), Some(Reason::WrongSize));
    case("type 5".into(), of(5, 148), None);
    case("a type with its reserved bytes in use".into(), [&[1, 1, 0, 0][..], &[0; 144]].concat(), None);
    case("a byte".into(), vec![1], None);
    case("nothing".into(), Vec::new(), None);
    cases
}
