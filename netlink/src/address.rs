//! Addresses of links.

use ipnet::IpNet;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::socket::Doing;
use crate::{Handle, Result};

/// One address with its prefix length on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address itself (host bits kept) and its prefix length.
    pub net: IpNet,
}

impl Handle {
    /// Every address of both families, of one link or of all.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<Address>> {
        let doing = Doing { action: "list", object: &"addresses" };
        let answers = self.route.dump(Message::GetAddress(AddressMessage::default()), doing).await?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            Message::NewAddress(message) => Address::from_message(message),
            _ => None,
        });
        Ok(addresses.filter(|address| link.is_none_or(|link| link == address.link)).collect())
    }

    /// Adds an address; an IPv6 one is usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// `is_taken` when it is there already; `is_missing` when the link is not.
    pub async fn add_address(&self, address: &Address) -> Result<()> {
        let mut message = address.to_message();
        message.header.flags = AddressHeaderFlags::Permanent;
        if address.net.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        let doing = Doing { action: "add", object: address };
        self.route.acknowledge(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }

    /// Removes an address.
    ///
    /// # Errors
    /// `is_missing` when it is not there.
    pub async fn remove_address(&self, address: &Address) -> Result<()> {
        let doing = Doing { action: "remove", object: address };
        self.route.acknowledge(Message::DelAddress(address.to_message()), 0, doing).await
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "address {} of link number {}", self.net, self.link)
    }
}

impl Address {
    fn to_message(self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = self.link;
        message.header.prefix_len = self.net.prefix_len();
        message.header.family =
            if self.net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // IPv4 keeps the host's own address in LOCAL and a point-to-point peer's in ADDRESS; without a peer both agree.
        let address = self.net.addr();
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, net })
    }
}
