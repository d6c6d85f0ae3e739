//! One netlink socket: requests out, answers or the kernel's refusal back.
//!
//! Every request asks for an acknowledgment, and a batch is one datagram whose messages the kernel works through in
//! order. Deliberately not here: what the messages mean.

use std::fmt::Debug;

use futures_util::StreamExt as _;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};

use crate::{Error, Result};

/// Messages in one datagram: their acknowledgments (about 1 KiB of socket memory each) must fit the default receive
/// buffer of 208 KiB, because a lost one would never be repeated.
pub(crate) const BATCH: usize = 64;

/// What is asked of which object, for the error text.
#[derive(Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub(crate) action: &'static str,
    pub(crate) object: &'a (dyn std::fmt::Display + Sync),
}

impl Doing<'_> {
    fn refused(&self, errno: i32, detail: String) -> Error {
        Error::Refused {
            action: self.action,
            object: self.object.to_string(),
            errno: Errno::from_raw(errno),
            detail,
        }
    }

    fn closed(&self) -> Error {
        Error::Closed { action: self.action, object: self.object.to_string() }
    }
}

/// A socket of one netlink protocol with messages `T`. Clones share it.
#[derive(Clone)]
pub(crate) struct Socket<T: Debug>(ConnectionHandle<T>);

impl<T> Socket<T>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug + Unpin + Send + 'static,
{
    /// Opens it in the calling thread's network namespace and serves it by a task of the current runtime.
    pub(crate) fn open(protocol: isize) -> Result<Self> {
        let failed = |error| Error::os("open", "netlink socket", &error);
        let (mut connection, handle, _) = proto::new_connection::<T>(protocol).map_err(failed)?;
        // Acknowledgments arrive in the order of the batch: that is how an answer finds its message.
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true).map_err(failed)?;
        // Errors need not repeat the request: what remains is the kernel's text.
        socket.set_cap_ack(true).map_err(failed)?;
        // Filters of dumps work only with strict checking, and unknown attributes are refused, not ignored (4.20).
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Sends one request with `flags` and waits until the kernel has done it.
    pub(crate) async fn acknowledge(&self, message: T, flags: u16, doing: Doing<'_>) -> Result<()> {
        self.answers(message, NLM_F_ACK | flags, doing).await.map(drop)
    }

    /// The answers to a dump.
    pub(crate) async fn dump(&self, message: T, doing: Doing<'_>) -> Result<Vec<T>> {
        self.answers(message, NLM_F_DUMP, doing).await
    }

    /// The single answer to a question.
    pub(crate) async fn ask(&self, message: T, doing: Doing<'_>) -> Result<Option<T>> {
        Ok(self.answers(message, 0, doing).await?.into_iter().next())
    }

    /// Sends up to [`BATCH`] requests as one datagram; one result each, in their order.
    pub(crate) async fn acknowledge_all(
        &self,
        requests: Vec<(T, u16)>,
    ) -> Option<Vec<std::result::Result<(), Refusal>>> {
        debug_assert!(requests.len() <= BATCH);
        let count = requests.len();
        let messages = requests.into_iter().map(|(message, flags)| framed(message, NLM_F_ACK | flags));
        let mut stream = self.0.request_batch(messages.collect::<Vec<_>>(), SocketAddr::new(0, 0)).ok()?;
        let mut results = Vec::with_capacity(count);
        while let Some(answer) = stream.next().await {
            if let NetlinkPayload::Error(error) = &answer.payload {
                results.push(Refusal::of(error));
            }
        }
        (results.len() == count).then_some(results)
    }

    async fn answers(&self, message: T, flags: u16, doing: Doing<'_>) -> Result<Vec<T>> {
        let message = framed(message, flags);
        let mut stream = self.0.request(message, SocketAddr::new(0, 0)).map_err(|_| doing.closed())?;
        let mut found = Vec::new();
        let mut acknowledged = flags & NLM_F_ACK == 0;
        while let Some(answer) = stream.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                NetlinkPayload::Error(error) => {
                    Refusal::of(&error).map_err(|refusal| doing.refused(refusal.errno, refusal.detail))?;
                    acknowledged = true;
                }
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(doing.refused(done.code.abs(), extended_ack(&done.extended_ack)));
                }
                _ => {}
            }
        }
        if acknowledged { Ok(found) } else { Err(doing.closed()) }
    }
}

fn framed<T: NetlinkSerializable>(message: T, flags: u16) -> NetlinkMessage<T> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// Why the kernel refused one message.
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

impl Refusal {
    fn of(error: &ErrorMessage) -> std::result::Result<(), Self> {
        // `header` is the request's netlink header (16 bytes) and, with NETLINK_CAP_ACK, the extended ack.
        let attributes = error.header.get(16..).unwrap_or_default();
        match error.code {
            None => Ok(()),
            Some(code) => Err(Self { errno: code.get().abs(), detail: extended_ack(attributes) }),
        }
    }

    pub(crate) fn into_error(self, doing: Doing<'_>) -> Error {
        doing.refused(self.errno, self.detail)
    }
}

/// The text of NLMSGERR_ATTR_MSG (1) among the attributes of an extended ack (`linux/netlink.h`), or nothing.
fn extended_ack(mut attributes: &[u8]) -> String {
    while let Some((&[l0, l1, k0, k1], _)) = attributes.split_first_chunk() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = attributes.get(4..length) else { break };
        if u16::from_ne_bytes([k0, k1]) == 1 {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_message_is_found_behind_other_attributes() {
        let bytes = [attribute(2, &[1, 2, 3, 4]), attribute(1, b"Invalid prefix\0")].concat();
        assert_eq!(extended_ack(&bytes), "Invalid prefix");
    }

    #[test]
    fn torn_attributes_give_no_text() {
        assert_eq!(extended_ack(&[]), "");
        assert_eq!(extended_ack(&[3, 0, 1, 0]), "");
        assert_eq!(extended_ack(&[200, 0, 1, 0, 65]), "");
    }
}
