//! Frames out of a byte stream.
//!
//! The reader fills [`Decoder::space`] and tells how much; frames borrow from the buffer, so a packet is not copied. The
//! buffer grows with what arrived, never with what a header merely announces.

use super::{Error, Frame, HEADER_LEN, header};

/// Reads are offered at least this much room: a WireGuard packet of a common MTU and then some.
const MIN_SPACE: usize = 4 << 10;

/// What has arrived and not yet been taken.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Taken up to here.
    start: usize,
    /// Filled up to here.
    end: usize,
    limit: usize,
}

impl Decoder {
    /// Refuses bodies longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, limit }
    }

    /// Changes the limit: before login less is accepted than after.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Room for the next read, never empty; follow with [`Self::filled`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < MIN_SPACE {
            let room = self.end.max(MIN_SPACE);
            self.buffer.resize(self.end + room, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of [`Self::space`] are now filled; at most that many count.
    pub fn filled(&mut self, count: usize) {
        self.end = self.buffer.len().min(self.end + count);
    }

    /// Copies `bytes` in: for what was read before the decoder had the stream, and for tests.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// The next whole frame and its body's length in bytes; `None` until more arrives.
    ///
    /// # Errors
    /// A malformed frame, which is skipped; or one over the limit, after which the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<(Frame<'_>, usize)>, Error> {
        let pending = &self.buffer[self.start..self.end];
        let Some((kind, length)) = header(pending, self.limit)? else { return Ok(None) };
        let rest = &pending[HEADER_LEN..];
        let Some(body) = rest.get(..length) else { return Ok(None) };
        self.start += HEADER_LEN + length;
        Frame::decode(kind, body).map(|frame| Some((frame, length)))
    }

    /// What has arrived and not yet been taken: for whoever goes on reading the stream without this decoder.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer[self.start..self.end].to_vec()
    }
}
