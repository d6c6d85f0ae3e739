//! Vectors of NaCl, the RFCs and WireGuard's own construction, and properties against other implementations.

use blake2::Blake2sMac;
use blake2::digest::{FixedOutput, KeyInit, Update, consts::U16};
use crypto_box::aead::Aead;
use crypto_box::{SalsaBox, SecretKey};
use proptest::prelude::*;
use std::vec::Vec;

use super::*;

fn bytes<const W: usize>(words: &[u32; W]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn array<const W: usize>(bytes: &[u8]) -> [u32; W] {
    let mut words = [0; W];
    for (word, part) in words.iter_mut().zip(bytes.chunks(4)) {
        let mut four = [0; 4];
        four[..part.len()].copy_from_slice(part);
        *word = u32::from_le_bytes(four);
    }
    words
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    std::array::from_fn(|at| {
        u8::from_str_radix(std::str::from_utf8(&digits[2 * at..][..2]).unwrap(), 16).unwrap()
    })
}

/// "Cryptography in NaCl" (Bernstein, 2009), sections 5, 8 and 9: the product of Alice's and Bob's keys, the box key, and
/// the first subkey. libsodium's `test/default/core1.c` and `core2.c` have the same.
#[test]
fn the_keys_of_nacls_own_example_come_out() {
    let product = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let first = box_key(&product);
    assert_eq!(bytes(&first), hex::<32>("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"));
    let nonce: [u32; 4] = array(&hex::<16>("69696ee955b62b73cd62bda875fc73d6"));
    let mut second = [0; 8];
    salsa20::hsalsa20(&mut second, &first, &nonce);
    assert_eq!(bytes(&second), hex::<32>("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4"));
}

/// Opens a box of 46 bytes.
fn open_ping(key: &Key, nonce: &[u8; 24], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut ping = Sealed::default();
    (ping.cipher.nonce, ping.tag, ping.text) = (array(nonce), array(&sealed[..16]), array(&sealed[16..]));
    ping.open_ping(key).then(|| bytes(&ping.text)[..PING_LEN].to_vec())
}

/// Seals a box of 32 bytes.
fn seal_pong(key: &Key, nonce: &[u8; 24], message: &[u8; 32]) -> Vec<u8> {
    let mut pong = Sealed::default();
    pong.cipher.nonce = array(nonce);
    pong.text[..8].copy_from_slice(&array::<8>(message));
    pong.seal_pong(key);
    [&bytes(&pong.tag)[..], &bytes(&pong.text)[..PONG_LEN]].concat()
}

/// A box made by libsodium's `crypto_box_easy_afternm` (1.0.18) under the box key of the example above; nonce 0 to 23,
/// message 0, 1, 2 and so on.
#[test]
fn libsodiums_boxes_open_and_come_out() {
    let key = words(&hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"));
    let nonce = std::array::from_fn(|at| at as u8);
    let ping = std::array::from_fn::<u8, 46, _>(|at| at as u8);
    assert_eq!(open_ping(&key, &nonce, &hex::<62>(SODIUM_PING)), Some(ping.to_vec()));
    assert_eq!(seal_pong(&key, &nonce, &std::array::from_fn(|at| at as u8)), hex::<48>(SODIUM_PONG));
}

const SODIUM_PING: &str = "8962fff27ad5f8e9282831099f9f57b4054f52a61f73537a488e9275af87b6d1f1d3cbf361f2ba9a62ca3d215a37f003\
    2a239558adb45417c0a54cef37c6";
const SODIUM_PONG: &str =
    "d3365d3909f0522f92ba8682ca188cff054f52a61f73537a488e9275af87b6d1f1d3cbf361f2ba9a62ca3d215a37f003";

/// RFC 7693 appendix B.
#[test]
fn blake2s_of_abc_is_the_rfcs() {
    let digest = blake2s(b"abc");
    assert_eq!(bytes(&digest), hex::<32>("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"));
}

/// A box of `crypto_box` between two keys, and the key it uses.
fn pair(ours: [u8; 32], theirs: [u8; 32]) -> (SalsaBox, Key) {
    let (ours, theirs) = (SecretKey::from(ours), SecretKey::from(theirs).public_key());
    let product = x25519_dalek::x25519(ours.to_bytes(), *theirs.as_bytes());
    (SalsaBox::new(&theirs, &ours), box_key(&product))
}

proptest! {
    #[test]
    fn a_ping_that_crypto_box_sealed_opens_and_no_other(
        (ours, theirs) in any::<([u8; 32], [u8; 32])>(),
        nonce in any::<[u8; 24]>(),
        message in any::<[u8; 32]>(),
        tail in any::<[u8; 14]>(),
        flip in 0_usize..62 * 8,
    ) {
        let (oracle, key) = pair(ours, theirs);
        let message = [&message[..], &tail].concat();
        let sealed = oracle.encrypt(&nonce.into(), &message[..]).unwrap();
        prop_assert_eq!(open_ping(&key, &nonce, &sealed), Some(message));
        let mut forged = sealed;
        forged[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(open_ping(&key, &nonce, &forged), None);
    }

    #[test]
    fn crypto_box_opens_the_pong_that_was_sealed(
        (ours, theirs) in any::<([u8; 32], [u8; 32])>(),
        nonce in any::<[u8; 24]>(),
        message in any::<[u8; 32]>(),
    ) {
        let (oracle, key) = pair(ours, theirs);
        let sealed = seal_pong(&key, &nonce, &message);
        prop_assert_eq!(oracle.decrypt(&nonce.into(), &sealed[..]).unwrap(), message);
    }

    #[test]
    fn the_keyed_hash_is_blake2s_of_any_length_up_to_two_blocks(
        key in any::<[u8; 32]>(), message in proptest::collection::vec(any::<u8>(), 1..=128),
    ) {
        let mut oracle = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap();
        oracle.update(&message);
        let mut hash = Hash::keyed(&words(&key));
        let (first, rest) = message.split_at(if message.len() > 64 { 64 } else { 0 });
        if !first.is_empty() {
            hash.block = array(first);
            hash.take(64);
        }
        hash.block = array(rest);
        let tag = hash.finish(message.len() as u32);
        prop_assert_eq!(bytes(&tag), oracle.finalize_fixed().to_vec());
    }
}
