//! NAT-PMP (RFC 6886): requests of 2 and 12 bytes, answers of 12 and 16. All numbers big endian.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Error;

/// Set in the opcode of an answer.
const ANSWER: u8 = 0x80;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;

/// Asks for the router's public address; any router that speaks NAT-PMP answers.
pub const ADDRESS_REQUEST: [u8; 2] = [0, ADDRESS];

/// Asks that UDP `external` at the router lead to our port `internal`. A lifetime of 0 s takes the mapping back.
pub fn map_request(internal: u16, external: u16, lifetime: Duration) -> [u8; 12] {
    let mut request = [0; 12];
    request[1] = MAP_UDP;
    request[4..6].copy_from_slice(&internal.to_be_bytes());
    request[6..8].copy_from_slice(&external.to_be_bytes());
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    request[8..12].copy_from_slice(&seconds.to_be_bytes());
    request
}

/// The router's public address out of its answer.
///
/// # Errors
/// When it is no answer to [`ADDRESS_REQUEST`], or a refusal.
pub fn read_address(answer: &[u8]) -> Result<Ipv4Addr, Error> {
    let body = body(answer, ADDRESS)?;
    Ok(Ipv4Addr::from(*body.first_chunk::<4>().ok_or(Error::Foreign)?))
}

/// External port and lifetime out of the answer to [`map_request`] for `internal`.
///
/// # Errors
/// When it is no answer to that, or a refusal.
pub fn read_mapping(answer: &[u8], internal: u16) -> Result<(u16, Duration), Error> {
    let &[i0, i1, e0, e1, a, b, c, d] = body(answer, MAP_UDP)?.first_chunk().ok_or(Error::Foreign)?;
    if u16::from_be_bytes([i0, i1]) != internal {
        return Err(Error::Foreign);
    }
    Ok((u16::from_be_bytes([e0, e1]), Duration::from_secs(u32::from_be_bytes([a, b, c, d]).into())))
}

/// What follows version, opcode, result and the router's uptime.
fn body(answer: &[u8], opcode: u8) -> Result<&[u8], Error> {
    let (&[version, kind, r0, r1, ..], body) = answer.split_first_chunk::<8>().ok_or(Error::Foreign)?;
    if version != 0 || kind != opcode | ANSWER {
        return Err(Error::Foreign);
    }
    match u16::from_be_bytes([r0, r1]) {
        0 => Ok(body),
        1 => Err(Error::Version),
        2 => Err(Error::Refused("not authorized; port mapping is switched off in the router".into())),
        3 => Err(Error::Refused("it has no network itself".into())),
        4 => Err(Error::Refused("out of resources".into())),
        5 => Err(Error::Refused("unsupported opcode".into())),
        other => Err(Error::Refused(format!("result {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_rfcs() {
        assert_eq!(
            map_request(41641, 41641, Duration::from_secs(7200)),
            [0, 1, 0, 0, 0xa2, 0xa9, 0xa2, 0xa9, 0, 0, 0x1c, 0x20]
        );
        assert_eq!(map_request(1, 0, Duration::ZERO)[8..], [0; 4]);
    }

    #[test]
    fn answers_are_read_and_foreign_ones_are_not() {
        assert_eq!(read_address(&[0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 1]), Ok([203, 0, 113, 1].into()));
        let answer = [0, 129, 0, 0, 0, 0, 0, 9, 0xa2, 0xa9, 0x10, 0, 0, 0, 0x0e, 0x10];
        assert_eq!(read_mapping(&answer, 41641), Ok((4096, Duration::from_secs(3600))));
        assert_eq!(read_mapping(&answer, 41642), Err(Error::Foreign));
        assert_eq!(read_address(&answer), Err(Error::Foreign));
        for length in 0..answer.len() {
            assert_eq!(read_mapping(&answer[..length], 41641), Err(Error::Foreign));
        }
        assert!(matches!(read_address(&[0, 128, 0, 2, 0, 0, 0, 9]), Err(Error::Refused(_))));
    }
}
