//! Who takes something away from the ruleset of nftables: the kernel tells, as `nft monitor` shows.
//!
//! Only removals, and only of which table: whoever owns the table looks at the rest ([`crate::Table`]). The messages are
//! read here, because no library at hand knows them and four fields are all that is wanted.

use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use crate::{Error, Result};

/// `NETLINK_NETFILTER` (`linux/netlink.h`).
const NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES` (`linux/netfilter/nfnetlink.h`).
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u8 = 10;
/// `NFT_MSG_DELTABLE`, `NFT_MSG_DELCHAIN`, `NFT_MSG_DELRULE`, `NFT_MSG_DELSET` (`linux/netfilter/nf_tables.h`). The first
/// attribute of each is the table's name.
const REMOVALS: [u8; 4] = [2, 5, 8, 11];
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`.
const TABLE: u16 = 1;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// A subscription.
pub(crate) struct NftWatch(TokioSocket);

impl NftWatch {
    /// Subscribes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn open() -> Result<Self> {
        let failed = |error| Error::os("open", "nftables change stream", &error);
        let mut socket = TokioSocket::new(NETFILTER).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.socket_mut().add_membership(GROUP).map_err(failed)?;
        Ok(Self(socket))
    }

    /// The tables that something was removed from, of the next datagram; `None` when datagrams were lost. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<String>>> {
        match self.0.recv_from_full().await {
            Ok((datagram, _)) => Ok(Some(removals(&datagram))),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => Ok(None),
            Err(error) => Err(Error::os("read", "nftables change stream", &error)),
        }
    }
}

/// The tables that a datagram of nftables messages removes something from.
fn removals(datagram: &[u8]) -> Vec<String> {
    let mut tables = Vec::new();
    let mut rest = datagram;
    while let Some(length) = word(rest, 0).map(|length| length as usize) {
        let Some(message) = rest.get(..length).filter(|_| length >= HEADER) else { break };
        if let Some(table) = removal(message).filter(|table| !tables.contains(table)) {
            tables.push(table);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    tables
}

fn removal(message: &[u8]) -> Option<String> {
    let (kind, subsystem) = (*message.get(4)?, *message.get(5)?);
    if subsystem != SUBSYSTEM || !REMOVALS.contains(&kind) {
        return None;
    }
    let attribute = message.get(HEADER + GENERIC..)?;
    let length = usize::from(half(attribute, 0)?);
    let name = attribute.get(4..length).filter(|_| half(attribute, 2) == Some(TABLE))?;
    Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, table: &str) -> Vec<u8> {
        let name = [table.as_bytes(), &[0]].concat();
        let attribute = [&(4 + name.len() as u16).to_ne_bytes()[..], &TABLE.to_ne_bytes(), &name].concat();
        let length = HEADER + GENERIC + attribute.len();
        let header = [&(length as u32).to_ne_bytes()[..], &[kind, SUBSYSTEM, 0, 0], &[0; 8], &[1, 0, 0, 0]];
        let mut message = [header.concat(), attribute].concat();
        message.resize(length.next_multiple_of(4), 0);
        message
    }

    #[test]
    fn removals_name_their_table_once() {
        let datagram =
            [message(8, "ours"), message(0, "made"), message(2, "ours"), message(5, "theirs")].concat();
        assert_eq!(removals(&datagram), ["ours", "theirs"]);
        assert!(removals(&message(6, "a rule added")).is_empty());
    }

    #[test]
    fn datagrams_cut_short_are_no_danger() {
        let datagram = message(2, "ours");
        // Behind what it says is its length there is padding.
        let whole = word(&datagram, 0).unwrap() as usize;
        for length in 0..whole {
            assert!(removals(&datagram[..length]).is_empty(), "{length}");
        }
        assert!(removals(&[0; 64]).is_empty());
    }
}
