//! PCP (RFC 6887): the MAP opcode and ANNOUNCE. All numbers big endian, addresses 16 bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;

use super::{Error, Granted};

const VERSION: u8 = 2;
const ANSWER: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const UDP: u8 = 17;
/// Header and MAP data, of request and answer alike.
const MAP_LEN: usize = 60;
const HEADER_LEN: usize = 24;

/// Ties an answer to its mapping; the same for its renewal and removal.
pub type Nonce = [u8; 12];

/// Asks whether the router speaks PCP.
pub fn announce_request(client: Ipv4Addr) -> [u8; HEADER_LEN] {
    header(ANNOUNCE, client, Duration::ZERO)
}

/// Asks that UDP `external` at the router lead to port `internal` of `client`, which must be the sender. A lifetime of 0 s
/// takes the mapping back.
pub fn map_request(
    client: Ipv4Addr,
    internal: u16,
    external: SocketAddrV4,
    lifetime: Duration,
    nonce: Nonce,
) -> [u8; MAP_LEN] {
    let mut request = [0; MAP_LEN];
    request[..HEADER_LEN].copy_from_slice(&header(MAP, client, lifetime));
    request[24..36].copy_from_slice(&nonce);
    request[36] = UDP;
    request[40..42].copy_from_slice(&internal.to_be_bytes());
    request[42..44].copy_from_slice(&external.port().to_be_bytes());
    request[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
    request
}

/// Whether these bytes are an answer to [`announce_request`] of a router that speaks PCP.
pub fn is_announcement(answer: &[u8]) -> bool {
    matches!(answer, [VERSION, kind, _, 0, ..] if *kind == ANNOUNCE | ANSWER && answer.len() >= HEADER_LEN)
}

/// What was granted, out of the answer to [`map_request`].
///
/// # Errors
/// When it is no answer to that request, or a refusal.
pub fn read_mapping(answer: &[u8], internal: u16, nonce: &Nonce) -> Result<Granted, Error> {
    match answer {
        // What a router that knows NAT-PMP only says.
        [0, ..] | [_, _, _, 1, ..] => return Err(Error::Version),
        [VERSION, kind, _, 0, ..] if *kind == MAP | ANSWER && answer.len() >= MAP_LEN => {}
        [VERSION, kind, _, result, ..] if *kind == MAP | ANSWER => return Err(refused(*result)),
        _ => return Err(Error::Foreign),
    }
    let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    if answer[24..36] != *nonce || answer[36] != UDP || number(40) != internal {
        return Err(Error::Foreign);
    }
    let ip: [u8; 16] = answer[44..60].try_into().map_err(|_| Error::Foreign)?;
    let ip = Ipv6Addr::from(ip).to_ipv4_mapped().ok_or(Error::Foreign)?;
    let seconds = u32::from(number(4)) << 16 | u32::from(number(6));
    Ok(Granted { external: SocketAddrV4::new(ip, number(42)), lifetime: Duration::from_secs(seconds.into()) })
}

fn header(opcode: u8, client: Ipv4Addr, lifetime: Duration) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    (header[0], header[1]) = (VERSION, opcode);
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    header[4..8].copy_from_slice(&seconds.to_be_bytes());
    header[8..24].copy_from_slice(&client.to_ipv6_mapped().octets());
    header
}

/// RFC 6887 section 7.4.
fn refused(result: u8) -> Error {
    Error::Refused(match result {
        2 => "not authorized; port mapping is switched off in the router".into(),
        5 => "unsupported option".into(),
        7 => "network failure".into(),
        8 => "out of resources".into(),
        10 => "this client has too many mappings".into(),
        11 => "it cannot give that port".into(),
        12 => "the address is not ours: another NAT is between".into(),
        other => format!("result {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(nonce: Nonce) -> [u8; MAP_LEN] {
        let external = SocketAddrV4::new([203, 0, 113, 1].into(), 4096);
        let lifetime = Duration::from_secs(70_000);
        let mut answer = map_request([192, 168, 1, 2].into(), 41641, external, lifetime, nonce);
        answer[1] |= ANSWER;
        answer
    }

    #[test]
    fn a_mapping_is_asked_for_and_granted() {
        let request = map_request(
            [192, 168, 1, 2].into(),
            41641,
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 41641),
            Duration::from_secs(7200),
            [9; 12],
        );
        assert_eq!(request[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(request[8..24], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\xa8\x01\x02");
        let granted = read_mapping(&answer([9; 12]), 41641, &[9; 12]).unwrap();
        assert_eq!(granted.external, "203.0.113.1:4096".parse().unwrap());
        assert_eq!(granted.lifetime, Duration::from_secs(70_000));
    }

    #[test]
    fn other_answers_are_not_taken_for_it() {
        let good = answer([9; 12]);
        assert_eq!(read_mapping(&good, 41641, &[8; 12]), Err(Error::Foreign));
        assert_eq!(read_mapping(&good, 41642, &[9; 12]), Err(Error::Foreign));
        for length in 0..MAP_LEN {
            assert!(read_mapping(&good[..length], 41641, &[9; 12]).is_err(), "{length}");
        }
        let mut no = good;
        no[3] = 2;
        assert!(matches!(read_mapping(&no, 41641, &[9; 12]), Err(Error::Refused(_))));
        assert_eq!(read_mapping(&[0, 128, 0, 1, 0, 0, 0, 0], 41641, &[9; 12]), Err(Error::Version));
        let mut announcement = announce_request([192, 168, 1, 2].into());
        assert!(!is_announcement(&announcement));
        announcement[1] |= ANSWER;
        assert!(is_announcement(&announcement));
    }
}
