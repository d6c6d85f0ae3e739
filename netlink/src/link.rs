//! Links (network devices): list, create a kernel WireGuard, change, delete.
//!
//! Links are addressed by name where they are changed, because a name is what an operator reads in the error, and by
//! index where other objects point at them. Deliberately not here: other kinds of links to create.

use std::fmt;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::socket::Doing;
use crate::{Error, Handle, Result};

/// What drives a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The kernel's WireGuard.
    Wireguard,
    /// A TUN or TAP device of some process.
    Tun,
    /// The loopback device.
    Loopback,
    /// A driver without a kind: hardware, or a virtual machine's device.
    Physical,
    /// Any other kind in the kernel's word: "veth", "bridge", "vlan".
    Other(String),
}

/// One link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// What drives it.
    pub kind: Kind,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Up and with carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// Ethernet address; none on WireGuard and TUN devices.
    pub mac: Option<[u8; 6]>,
    /// Free text of the operator (`ip link set alias`).
    pub alias: Option<String>,
    /// Index of the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// Index of the link below it (of a VLAN, its card; of a veth, its other end, which may be in another namespace).
    pub lower: Option<u32>,
    /// Id of the XDP program on it.
    pub xdp: Option<u32>,
}

/// What to change of a link; `None` leaves as is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bytes of the largest packet.
    pub mtu: Option<u32>,
    /// Free text; the empty string removes it.
    pub alias: Option<String>,
}

impl Handle {
    /// Every link of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let doing = Doing { action: "list", object: &"links" };
        let answers = self.route.dump(Message::GetLink(LinkMessage::default()), doing).await?;
        Ok(answers.iter().filter_map(Link::from_answer).collect())
    }

    /// The link of that name, or `None`.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than absence.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        self.find_link(named(name), &Name(name)).await
    }

    /// The link of that index, or `None`.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than absence.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.find_link(message, &format!("link number {index}")).await
    }

    async fn find_link(
        &self,
        message: LinkMessage,
        object: &(dyn fmt::Display + Sync),
    ) -> Result<Option<Link>> {
        match self.route.ask(Message::GetLink(message), Doing { action: "look up", object }).await {
            Ok(answer) => Ok(answer.as_ref().and_then(Link::from_answer)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a kernel WireGuard link, down and without keys. Its UDP socket will live in this handle's namespace.
    ///
    /// # Errors
    /// [`crate::Error::NoKernelWireguard`] when the kernel has no WireGuard; `is_taken` when the name exists.
    pub async fn create_wireguard(&self, name: &str) -> Result<Link> {
        let doing = Doing { action: "create WireGuard", object: &Name(name) };
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        let request = Message::NewLink(message);
        match self.route.acknowledge(request, NLM_F_CREATE | NLM_F_EXCL, doing).await {
            // The answer to a kind for which there is no driver, after the kernel tried to load its module.
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                Err(Error::NoKernelWireguard(name.into()))
            }
            Err(error) => Err(error),
            Ok(()) => self.link(name).await?.ok_or_else(|| Error::NotWireguard(name.into())),
        }
    }

    /// Creates a veth pair, both ends down.
    ///
    /// # Errors
    /// `is_taken` when one of the names exists.
    pub async fn create_veth(&self, name: &str, peer: &str) -> Result<()> {
        let mut message = named(name);
        let peer = InfoData::Veth(InfoVeth::Peer(named(peer)));
        let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let doing = Doing { action: "create veth", object: &Name(name) };
        self.route.acknowledge(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }

    /// Changes what `change` names, in one message.
    ///
    /// # Errors
    /// `is_missing` when there is no such link.
    pub async fn set_link(&self, name: &str, change: &LinkChange) -> Result<()> {
        let mut message = named(name);
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(change.alias.clone().map(LinkAttribute::IfAlias));
        self.route
            .acknowledge(Message::SetLink(message), 0, Doing { action: "change", object: &Name(name) })
            .await
    }

    /// Deletes a link; its addresses and routes go with it.
    ///
    /// # Errors
    /// `is_missing` when there is no such link.
    pub async fn delete_link(&self, name: &str) -> Result<()> {
        let request = Message::DelLink(named(name));
        self.route.acknowledge(request, 0, Doing { action: "delete", object: &Name(name) }).await
    }
}

struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

impl Link {
    fn from_answer(answer: &Message) -> Option<Self> {
        match answer {
            Message::NewLink(message) => Some(Self::from_message(message)),
            _ => None,
        }
    }

    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let kind = match message.header.link_layer_type {
            LinkLayerType::Loopback => Kind::Loopback,
            _ => Kind::Physical,
        };
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            mac: None,
            alias: None,
            master: None,
            lower: None,
            xdp: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::Link(lower) => link.lower = Some(*lower),
                LinkAttribute::Xdp(xdp) => link.xdp = xdp.iter().find_map(xdp_program),
                LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(Kind::from_info).unwrap_or(link.kind);
                }
                _ => {}
            }
        }
        link
    }
}

fn xdp_program(attribute: &LinkXdp) -> Option<u32> {
    match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    }
}

impl Kind {
    /// Whether it is of this kind, in the kernel's word.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Other(kind) if kind == word)
    }

    fn from_info(info: &LinkInfo) -> Option<Self> {
        match info {
            LinkInfo::Kind(InfoKind::Wireguard) => Some(Self::Wireguard),
            LinkInfo::Kind(InfoKind::Tun) => Some(Self::Tun),
            LinkInfo::Kind(other) => Some(Self::Other(other.to_string())),
            _ => None,
        }
    }
}
