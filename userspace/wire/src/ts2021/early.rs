//! The early payload: what a server may say through Noise before HTTP/2 begins.
//!
//! Its header is as long as an HTTP/2 frame's, and no HTTP/2 frame starts like it; so a client reads these 9 bytes and
//! then knows which of the two it has.

use crate::control::EarlyNoise;

/// Length of the header: magic and length, or HTTP/2's first frame header.
pub const EARLY_HEADER_LEN: usize = 9;
const MAGIC: [u8; 5] = *b"\xff\xff\xffTS";
/// More than any server has to say here.
const MAX_LEN: usize = 64 << 10;

/// Why an early payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EarlyError {
    /// The header announces more than is reasonable.
    #[error("early payload of {0} bytes")]
    TooLarge(usize),
    /// Not the JSON it should be.
    #[error("early payload: {0}")]
    Json(#[from] serde_json::Error),
}

/// The header and the JSON.
pub fn encode_early(early: &EarlyNoise) -> Vec<u8> {
    let json = serde_json::to_vec(early).expect("a struct of one text has a JSON form");
    [&MAGIC[..], &(json.len() as u32).to_be_bytes(), &json].concat()
}

/// How many bytes of JSON follow the header; `None` when this is no early payload but HTTP/2's first 9 bytes.
///
/// # Errors
/// When the length is over 64 KiB.
pub fn early_len(header: [u8; EARLY_HEADER_LEN]) -> Result<Option<usize>, EarlyError> {
    let [a, b, c, d, e, len @ ..] = header;
    if [a, b, c, d, e] != MAGIC {
        return Ok(None);
    }
    match u32::from_be_bytes(len) as usize {
        len if len > MAX_LEN => Err(EarlyError::TooLarge(len)),
        len => Ok(Some(len)),
    }
}

/// The JSON after the header.
///
/// # Errors
/// When it is not an [`EarlyNoise`].
pub fn parse_early(json: &[u8]) -> Result<EarlyNoise, EarlyError> {
    Ok(serde_json::from_slice(json)?)
}

#[cfg(test)]
mod tests {
    use types::ChallengePublic;

    use super::*;

    #[test]
    fn written_as_go_writes_it_and_read_back() {
        let early = EarlyNoise { node_key_challenge: ChallengePublic::from_bytes([0xab; 32]) };
        let bytes = encode_early(&early);
        let (header, json) = bytes.split_first_chunk().unwrap();
        assert_eq!(header, b"\xff\xff\xffTS\0\0\0\x5f");
        assert_eq!(json, format!(r#"{{"nodeKeyChallenge":"chalpub:{}"}}"#, "ab".repeat(32)).as_bytes());
        assert_eq!(early_len(*header).unwrap(), Some(json.len()));
        assert_eq!(parse_early(json).unwrap(), early);
    }

    #[test]
    fn http2_is_not_early() {
        // A SETTINGS frame with three settings.
        assert_eq!(early_len([0, 0, 18, 4, 0, 0, 0, 0, 0]).unwrap(), None);
        assert!(matches!(early_len(*b"\xff\xff\xffTS\x01\0\0\0"), Err(EarlyError::TooLarge(_))));
    }
}
