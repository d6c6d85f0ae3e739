//! Which peer a person means: by address, by name, or by name in DNS.

use std::net::IpAddr;

use anyhow::{Context, bail};
use types::NodePublic;
use wire::local::{PeerStatus, Status};

use super::status::name;
use crate::client::Client;

/// The address to use for `text`, and whether it is this node's own.
pub(super) async fn address(status: &Status, text: &str) -> anyhow::Result<(IpAddr, bool)> {
    if let Ok(addr) = text.parse() {
        return Ok((addr, status.tailscale_ips.contains(&addr)));
    }
    if let Some(peer) = status.peer.values().find(|peer| is_called(status, peer, text)) {
        let addr = peer.tailscale_ips.first().with_context(|| format!("{text} has no address yet"))?;
        return Ok((*addr, false));
    }
    if let Some(own) = status.self_node.iter().find(|own| is_called(status, own, text))
        && let Some(addr) = own.tailscale_ips.first()
    {
        return Ok((*addr, true));
    }
    match tokio::net::lookup_host((text, 0)).await.map(|mut found| found.next()) {
        Ok(Some(found)) => Ok((found.ip(), status.tailscale_ips.contains(&found.ip()))),
        _ => bail!("{text} is not an address, not a peer (see `underpass status`), and DNS does not know it"),
    }
}

fn is_called(status: &Status, node: &PeerStatus, text: &str) -> bool {
    let full = node.dns_name.trim_end_matches('.');
    name(status, node).eq_ignore_ascii_case(text) || full.eq_ignore_ascii_case(text.trim_end_matches('.'))
}

/// The node key of the peer that `text` means.
pub(super) async fn key(node: &Client, text: &str) -> anyhow::Result<NodePublic> {
    let status = node.status(true).await?;
    let (addr, _) = address(&status, text).await?;
    Ok(by_address(&status, addr).with_context(|| format!("no peer has {addr}"))?.public_key)
}

/// The node, ours or a peer, that has `addr`.
pub(super) fn by_address(status: &Status, addr: IpAddr) -> Option<&PeerStatus> {
    status.self_node.iter().chain(status.peer.values()).find(|node| node.tailscale_ips.contains(&addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let peer = PeerStatus {
            dns_name: "gw.net.test.".into(),
            tailscale_ips: vec!["100.64.0.2".parse().unwrap()],
            ..PeerStatus::default()
        };
        let own = PeerStatus {
            dns_name: "me.net.test.".into(),
            tailscale_ips: vec!["100.64.0.1".parse().unwrap()],
            ..PeerStatus::default()
        };
        Status {
            magic_dns_suffix: "net.test".into(),
            tailscale_ips: own.tailscale_ips.clone(),
            self_node: Some(own),
            peer: [(NodePublic::default(), peer)].into(),
            ..Status::default()
        }
    }

    #[tokio::test]
    async fn a_peer_is_found_by_address_name_or_full_name() {
        let status = status();
        for text in ["100.64.0.2", "gw", "GW", "gw.net.test", "gw.net.test."] {
            let found = address(&status, text).await.unwrap();
            assert_eq!(found, ("100.64.0.2".parse().unwrap(), false), "{text}");
        }
        for text in ["me", "100.64.0.1"] {
            assert_eq!(
                address(&status, text).await.unwrap(),
                ("100.64.0.1".parse().unwrap(), true),
                "{text}"
            );
        }
        let error = address(&status, "no such.peer").await.unwrap_err().to_string();
        assert!(error.contains("underpass status"), "{error}");
    }
}
