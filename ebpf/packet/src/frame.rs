//! A packet as something that gives and takes words at an offset.

/// A packet, from its network header on.
pub trait Frame {
    /// `N` words of four bytes each, in memory order (use `u32::from_be`), or `None` past the end.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Whether the packet has at least `end` bytes (`end` is not zero).
    fn reaches(&self, end: usize) -> bool;
}

/// A packet that may be rewritten in place.
pub trait FrameMut: Frame {
    /// Overwrites `N` words, in memory order; `None` past the end, and then nothing is written.
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()>;
}

/// A packet in ordinary memory.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Frame for Bytes<'_> {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.0.get(offset..offset.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        Some(words)
    }

    fn reaches(&self, end: usize) -> bool {
        end <= self.0.len()
    }
}

/// A packet in ordinary memory that may be rewritten.
#[derive(Debug)]
pub struct BytesMut<'a>(pub &'a mut [u8]);

impl Frame for BytesMut<'_> {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        Bytes(self.0).words(offset)
    }

    fn reaches(&self, end: usize) -> bool {
        end <= self.0.len()
    }
}

impl FrameMut for BytesMut<'_> {
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        let bytes = self.0.get_mut(offset..offset.checked_add(4 * N)?)?;
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }
}
