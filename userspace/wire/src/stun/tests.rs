//! Responses of real servers from tailscale's `net/stun/stun_test.go`, and properties.

use proptest::prelude::*;

use super::*;

/// Server, packet, address.
const RESPONSES: [(&str, &str, &str); 9] = [
    (
        "google",
        "0101000c2112a4422360b11e3ec68ffa93e080070020000800\
     01c7866957856f",
        "72.69.33.45:59028",
    ),
    (
        "google",
        "0101000c2112a442f9f121cbde7d7c75923ce2710020000800\
     01c7876957856f",
        "72.69.33.45:59029",
    ),
    (
        "sipgate, alternate attribute",
        "010100442112a442482eb64715e8b28eaead6444000100080001e4ab4845212d0004000800012710d90a4498\
         0005000800012711d9747a8a802000080001c5b96957856f80220010566f766964612e6f726720302e393600",
        "72.69.33.45:58539",
    ),
    (
        "powervoip, plain address only",
        "010100242112a4427e57966829f44462 9d1deaa6000100080001e9d34845212d000400080001 0d964d48a9d4\
         0005000800010d974d48a9d5",
        "72.69.33.45:59859",
    ),
    (
        "pion, trailing bytes",
        "010100242112a442ebc2d36ef471217c4f3e308e8022000a656e64706f696e7465720000002000080001ce665e12a443\
         80280004b699bb02010100242112a442",
        "127.0.0.1:61300",
    ),
    (
        "stuntman, IPv6",
        "010100482112a44206f56685d28af3e69ce341e200010014000290ce260200d1b4cfc10038b231fffeef96f6802b0014\
         00020d962604a880000200d10000000000c57001002000140002b1dc0710a493b23aa785ea38c219620cd714",
        "[2602:d1:b4cf:c100:38b2:31ff:feef:96f6]:37070",
    ),
    (
        "software of one byte",
        "010100142112a442ebc2d36ef471217c4f3e308e8022000161000000002000080001ce665e12a443",
        "127.0.0.1:61300",
    ),
    (
        "software of three bytes",
        "010100142112a442ebc2d36ef471217c4f3e308e8022000361626300002000080001ce665e12a443",
        "127.0.0.1:61300",
    ),
    (
        "IPv4 mapped into IPv6",
        "010100182112a4424fd5d202dcb37d31fc773306002000140002cd3d2112a4424fd5d202dcb382ce2dc3fcc7",
        "209.180.207.193:60463",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(' ', "")).unwrap()
}

#[test]
fn responses_of_real_servers_are_understood() {
    for (server, packet, address) in RESPONSES {
        let packet = bytes(packet);
        let (tx, source) = decode_response(&packet).unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(source, address.parse().unwrap(), "{server}");
        assert_eq!(tx.0, packet[8..20], "{server}");
        let length = HEADER_LEN + usize::from(packet[3]);
        for cut in 0..length {
            assert!(decode_response(&packet[..cut]).is_err(), "{server} cut at {cut}");
        }
    }
}

#[test]
fn request_is_what_servers_expect_byte_by_byte() {
    let packet = encode_request(TxId([0; 12]));
    assert_eq!(packet[..8], bytes("000100142112a442"));
    assert_eq!(packet[20..36], bytes("802200087461696c6e6f6465 80280004"));
    assert_eq!(decode_request(&packet), Ok(TxId([0; 12])));
    for cut in 0..packet.len() {
        assert!(decode_request(&packet[..cut]).is_err());
    }
    let mut forged = packet;
    forged[39] ^= 1;
    assert_eq!(decode_request(&forged), Err(Error::Fingerprint));
    let mut foreign = packet;
    foreign[24] = b'T';
    assert_eq!(decode_request(&foreign), Err(Error::Software));
    assert_eq!(decode_request(&bytes(RESPONSES[0].1)), Err(Error::NotRequest));
}

#[test]
fn stun_is_told_by_its_first_bits_and_cookie() {
    let header = |first: u8| [&[first, 0, 0, 0][..], &MAGIC_COOKIE, &[0; 12]].concat();
    assert!(looks_like_stun(&header(0)));
    assert!(looks_like_stun(&header(0x20)));
    assert!(!looks_like_stun(&header(0x40)));
    assert!(!looks_like_stun(&header(0xf0)));
    assert!(!looks_like_stun(&header(0)[..19]));
    assert!(!looks_like_stun(&[0; 20]));
}

proptest! {
    #[test]
    fn responses_round_trip(tx in any::<[u8; 12]>(), source in any::<std::net::SocketAddr>()) {
        let source = std::net::SocketAddr::new(source.ip().to_canonical(), source.port());
        prop_assert_eq!(decode_response(&encode_response(TxId(tx), source)), Ok((TxId(tx), source)));
    }

    #[test]
    fn requests_round_trip(tx in any::<[u8; 12]>()) {
        prop_assert_eq!(decode_request(&encode_request(TxId(tx))), Ok(TxId(tx)));
    }

    #[test]
    fn any_attributes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..2) {
        let packet = [&[kind, 1, 0, body.len() as u8][..], &MAGIC_COOKIE, &[7; 12], &body].concat();
        let _ = (decode_response(&packet), decode_request(&packet));
    }
}
