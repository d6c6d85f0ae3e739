//! A map stream's frames: length (4 bytes, little-endian), then one message as JSON, plain or compressed by zstd.
//!
//! Sans-IO: bytes are pushed in as they come and whole messages drained. Both the frame and what it inflates to are
//! capped, so that neither a wrong length nor a small frame of zeros can take the reader's memory.
//! Source: tailscale `control/controlclient/direct.go`.

use std::io::Read;

/// Compression level: the fastest, as maps are sent far more often than they are stored.
const LEVEL: i32 = 1;

/// The largest window a frame may ask for, as a power of two: 8 MiB, what Go's encoder uses at most.
const WINDOW_LOG_MAX: u32 = 23;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix or the inflated message exceeds the reader's limit.
    #[error("map frame of {size} bytes or more exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes announced, or inflated so far.
        size: usize,
        /// The reader's limit.
        limit: usize,
    },
    /// The frame is not zstd.
    #[error("map frame does not decompress: {0}")]
    Zstd(#[from] std::io::Error),
}

/// One frame around `json`; `compress` as the client asked (`MapRequest::compress == "zstd"`).
///
/// # Errors
/// When the message is longer than the length prefix can say, or the compressor has no memory.
pub fn encode_frame(json: &[u8], compress: bool) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    if compress {
        frame.extend_from_slice(&zstd::bulk::compress(json, LEVEL)?);
    } else {
        frame.extend_from_slice(json);
    }
    let size = frame.len() - 4;
    let length = u32::try_from(size).map_err(|_| FrameError::TooLarge { size, limit: u32::MAX as usize })?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Splits a map stream into messages.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    compressed: bool,
    limit: usize,
}

impl Frames {
    /// A reader of a stream that was asked for `compressed` or plain; no message may exceed `limit` bytes of JSON.
    pub fn new(compressed: bool, limit: usize) -> Self {
        Self { buffer: Vec::new(), compressed, limit }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The JSON of the next whole message, `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the frame is over the limit or does not decompress; the stream cannot be read on.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_le_bytes(*prefix) as usize;
        if size > self.limit {
            return Err(FrameError::TooLarge { size, limit: self.limit });
        }
        let Some(body) = rest.get(..size) else { return Ok(None) };
        let json = if self.compressed { inflate(body, self.limit)? } else { body.to_vec() };
        self.buffer.drain(..4 + size);
        Ok(Some(json))
    }
}

/// `body` decompressed, at most `limit` bytes of it.
fn inflate(body: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut json = Vec::new();
    let mut decoder = zstd::Decoder::with_buffer(body)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    decoder.take(limit as u64 + 1).read_to_end(&mut json)?;
    if json.len() > limit {
        return Err(FrameError::TooLarge { size: json.len(), limit });
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_frame_is_length_and_json() {
        assert_eq!(encode_frame(b"{}", false).unwrap(), b"\x02\0\0\0{}");
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = encode_frame(&vec![b' '; 10 << 20], true).unwrap();
        assert!(bomb.len() < 10_000);
        let mut frames = Frames::new(true, 1 << 20);
        frames.push(&bomb);
        assert!(matches!(frames.poll(), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_wrong_length_is_refused_before_its_bytes_come() {
        let mut frames = Frames::new(false, 1000);
        frames.push(&1001_u32.to_le_bytes());
        assert!(matches!(frames.poll(), Err(FrameError::TooLarge { size: 1001, limit: 1000 })));
    }

    #[test]
    fn what_is_not_zstd_is_refused() {
        let mut frames = Frames::new(true, 1000);
        frames.push(b"\x02\0\0\0{}");
        assert!(matches!(frames.poll(), Err(FrameError::Zstd(_))));
    }

    proptest! {
        #[test]
        fn any_messages_in_any_pieces(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
            compress: bool,
            piece in 1_usize..50,
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|message| encode_frame(message, compress).unwrap()).collect();
            let mut frames = Frames::new(compress, 1000);
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                frames.push(bytes);
                while let Some(message) = frames.poll().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn any_bytes_end_in_an_error_or_a_message(bytes: Vec<u8>, compressed: bool) {
            let mut frames = Frames::new(compressed, 100);
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.poll() {}
        }
    }
}
