//! A frame in ordinary memory, for running on the host what rewrites frames.

use abi::Family;
use packet::{Bytes, BytesMut, Frame, FrameMut, LinkFrame};

const HEADER: usize = 14;
/// What a forgotten write leaves behind.
const RUBBISH: u8 = 0xa5;

/// A frame, from its Ethernet header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EthernetFrame(pub Vec<u8>);

impl EthernetFrame {
    /// The packet, from its network header on.
    pub fn packet(&self) -> &[u8] {
        self.0.get(HEADER..).unwrap_or_default()
    }
}

impl Frame for EthernetFrame {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        Bytes(self.packet()).words(offset)
    }

    fn reaches(&self, end: usize) -> bool {
        Bytes(self.packet()).reaches(end)
    }
}

impl FrameMut for EthernetFrame {
    fn set_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        BytesMut(self.0.get_mut(HEADER..)?).set_words(offset, words)
    }
}

impl LinkFrame for EthernetFrame {
    fn move_head(&mut self, by: i32) -> Option<()> {
        let bytes = by.unsigned_abs() as usize;
        if by < 0 {
            self.0.splice(..0, vec![RUBBISH; bytes]);
        } else if bytes <= self.packet().len() {
            self.0.drain(..bytes);
        } else {
            return None;
        }
        Some(())
    }

    fn set_end(&mut self, end: usize) -> Option<()> {
        self.0.resize(HEADER + end, RUBBISH);
        Some(())
    }

    fn set_link(&mut self, macs: &[u32; 3], family: Family) -> Option<()> {
        let header = self.0.get_mut(..HEADER)?;
        let kind: u16 = match family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        };
        header[..12].copy_from_slice(&macs.map(u32::to_ne_bytes).concat());
        header[12..].copy_from_slice(&kind.to_be_bytes());
        Some(())
    }

    fn macs(&self) -> Option<[u32; 3]> {
        Bytes(&self.0).words(0)
    }

    fn turn_link(&mut self) -> Option<()> {
        let (destination, rest) = self.0.split_at_mut_checked(6)?;
        destination.swap_with_slice(rest.get_mut(..6)?);
        Some(())
    }
}
