//! The binding response: where the server saw the request come from.

use std::net::{IpAddr, SocketAddr};

use super::{Error, HEADER_LEN, MAGIC_COOKIE, TxId, attribute, tx_id};

const SUCCESS: [u8; 2] = [1, 1];

/// A response with one XOR-MAPPED-ADDRESS: 32 bytes for IPv4, 44 for IPv6.
pub fn encode_response(tx_id: TxId, source: SocketAddr) -> Vec<u8> {
    let hidden = attribute::xor(source, tx_id);
    let (family, ip) = match hidden.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let value_len = 4 + ip.len() as u16;
    let mut packet = Vec::with_capacity(HEADER_LEN + 4 + usize::from(value_len));
    packet.extend_from_slice(&SUCCESS);
    packet.extend_from_slice(&(4 + value_len).to_be_bytes());
    packet.extend_from_slice(&MAGIC_COOKIE);
    packet.extend_from_slice(&tx_id.0);
    packet.extend_from_slice(&attribute::XOR_MAPPED_ADDRESS.to_be_bytes());
    packet.extend_from_slice(&value_len.to_be_bytes());
    packet.extend_from_slice(&[0, family]);
    packet.extend_from_slice(&hidden.port().to_be_bytes());
    packet.extend_from_slice(&ip);
    packet
}

/// Transaction and own address of a successful response; bytes after the message are ignored.
/// MAPPED-ADDRESS is believed only when there is no XOR-MAPPED-ADDRESS, for NATs are known to rewrite it.
///
/// # Errors
/// When it is no successful response, or has no readable address.
pub fn decode_response(packet: &[u8]) -> Result<(TxId, SocketAddr), Error> {
    let tx_id = tx_id(packet).ok_or(Error::NotStun)?;
    if packet[..2] != SUCCESS {
        return Err(Error::NotResponse);
    }
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let body = packet[HEADER_LEN..].get(..length).ok_or(Error::Attributes)?;
    let (mut xored, mut plain) = (None, None);
    for item in attribute::iter(body) {
        let (kind, value) = item?;
        match kind {
            attribute::XOR_MAPPED_ADDRESS | attribute::XOR_MAPPED_ADDRESS_ALTERNATE => {
                xored = Some(attribute::xor(attribute::decode_address(value)?, tx_id));
            }
            attribute::MAPPED_ADDRESS => plain = Some(attribute::decode_address(value)?),
            _ => {}
        }
    }
    let source = xored.or(plain).ok_or(Error::Attributes)?;
    Ok((tx_id, SocketAddr::new(source.ip().to_canonical(), source.port())))
}
