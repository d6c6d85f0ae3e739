//! A connection to another server of the region: packets for its clients out, who they are in (tailscale
//! `derp/derphttp/mesh_client.go`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use bytes::Bytes;
use types::NodePublic;

use crate::Server;
use crate::mailbox::Mailbox;
use crate::registry::UplinkId;

/// See the module. Dropping it takes the other server's clients out of reach.
pub struct Uplink {
    server: Arc<Server>,
    id: UplinkId,
    mailbox: Arc<Mailbox>,
}

impl Uplink {
    pub(crate) fn new(server: Arc<Server>, id: UplinkId, mailbox: Arc<Mailbox>) -> Self {
        Self { server, id, mailbox }
    }

    /// The other server has this client.
    pub fn present(&self, key: NodePublic) {
        self.server.registry().present_at(self.id, key);
        self.server.mesh_changed();
    }

    /// The other server has lost this client.
    pub fn gone(&self, key: NodePublic) {
        self.server.registry().gone_at(self.id, key);
        self.server.mesh_changed();
    }

    /// Puts frames for the other server into `out`, until it holds `limit` bytes; false when there was nothing.
    pub fn transmit(&self, limit: usize, out: &mut VecDeque<Bytes>) -> bool {
        let mut length = 0;
        while length < limit
            && let Some(run) = self.mailbox.next_run()
        {
            length += run.bytes.len();
            self.server.live().packets_sent.fetch_add(run.packets, Ordering::Relaxed);
            self.server.live().bytes_sent.fetch_add(run.payload, Ordering::Relaxed);
            out.push_back(run.bytes);
        }
        length > 0
    }

    /// Who is to be woken when [`Self::transmit`] has something.
    pub fn register(&self, reader: &Waker) {
        self.mailbox.register(reader);
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.server.registry().remove_uplink(self.id);
        self.server.mesh_changed();
    }
}
