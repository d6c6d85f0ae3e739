//! The control client: one task that keeps this node registered and its map stream open, whatever the network does.
//!
//! [`Client::start`] spawns it; orders go in, [`Event`]s come out. In a session it fetches the server's key, opens
//! ts2021, registers if it has not yet, then holds the map stream and reports changes of this node beside it. A session
//! that fails is followed by another after a growing pause; a failure only a person can mend pauses until an order.
//! Deliberately not here: keys and their rotation, the netmap, and what `up` and `down` mean (the event loop).

mod backoff;
mod connection;
mod failure;
mod map_stream;
mod ping;
mod server_url;
mod session;
mod task;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use transport::tls::Trust;
use types::{DiscoPublic, MachinePrivate, NodePublic};
use wire::control::{AuthKey, EndpointType, Hostinfo, MapResponse, RegisterResponse};
use wire::local::{PingResult, PingType};

pub use failure::Failure;
pub use server_url::ServerUrl;

/// How many events wait for the event loop before the stream is held back.
const EVENT_QUEUE: usize = 64;

/// What stays the same for a client's life; another server or machine key is another client.
#[derive(Clone)]
pub struct Config {
    /// The server.
    pub server: ServerUrl,
    /// Who this machine is.
    pub machine: MachinePrivate,
    /// Whom TLS believes.
    pub trust: Trust,
    /// `SO_MARK` for the sockets, so that they never go into our own tunnel.
    pub mark: Option<u32>,
}

/// What this node says of itself to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The machine. `backend_log_id` must not be empty for stock servers.
    pub hostinfo: Hostinfo,
    /// The key of this node's DISCO messages.
    pub disco_key: DiscoPublic,
    /// Underlay addresses, each with where it came from.
    pub endpoints: Vec<(SocketAddr, EndpointType)>,
    /// Such as `warn-ip-forwarding-off`.
    pub debug_flags: Vec<String>,
}

/// Who wants to be registered, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// The key to register.
    pub node_key: NodePublic,
    /// The key it replaces; zero when none.
    pub old_node_key: NodePublic,
    /// The pre-authentication key; `None` for a node that is registered already, and for interactive login.
    pub auth_key: Option<AuthKey>,
    /// The node is to be forgotten when it is gone.
    pub ephemeral: bool,
}

/// What the client tells.
#[derive(Debug)]
pub enum Event {
    /// A session is being opened.
    Connecting,
    /// The server has taken the node's key. Comes once an order, and again when the server had forgotten the node.
    Registered(Box<RegisterResponse>),
    /// The user must open this page; the client waits for the server meanwhile.
    AuthUrl(String),
    /// The server says that the node key has expired: order a registration with a new one. The client waits.
    KeyExpired,
    /// A message of the map stream, without its `ping_request`.
    Map(Box<MapResponse>),
    /// The server wants a peer pinged; the client posts the result.
    Ping {
        /// Whom.
        ip: IpAddr,
        /// How.
        kind: PingType,
        /// Where the result goes.
        reply: oneshot::Sender<PingResult>,
    },
    /// The server has taken the logout; the client waits.
    LoggedOut,
    /// The server's clock is so many seconds ahead of ours (behind, when negative), more than is good for certificates.
    ClockOff(i64),
    /// The session has ended. `retry` is false when the client waits for an order.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether it tries again by itself.
        retry: bool,
    },
}

/// The handle; dropping it ends the task and its connections.
pub struct Client {
    orders: mpsc::UnboundedSender<Order>,
    report: watch::Sender<Report>,
    task: AbortHandle,
}

/// What the task is told; a new order takes the place of the one before.
#[derive(Clone, Debug)]
enum Order {
    /// Be registered and stream the map.
    Register(Registration),
    /// Give up this key.
    Logout(NodePublic),
    /// Close everything, stay registered.
    Pause,
    /// The network has changed: the connection is probably dead, try again at once.
    Reconnect,
}

impl Client {
    /// Starts the task, which waits for an order. Must be called inside a Tokio runtime.
    pub fn start(config: Config, report: Report) -> (Self, mpsc::Receiver<Event>) {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (report, reported) = watch::channel(report);
        let (events, heard) = mpsc::channel(EVENT_QUEUE);
        let task = tokio::spawn(task::run(config, ordered, reported, events)).abort_handle();
        (Self { orders, report, task }, heard)
    }

    /// Registers and streams the map from now on. With `auth_key: None` a node the server knows is just confirmed.
    pub fn register(&self, registration: Registration) {
        self.order(Order::Register(registration));
    }

    /// Tells the server to forget the key's login, then waits.
    pub fn logout(&self, node_key: NodePublic) {
        self.order(Order::Logout(node_key));
    }

    /// Closes the stream and waits; the server sees the node go offline.
    pub fn pause(&self) {
        self.order(Order::Pause);
    }

    /// Drops the connection and opens another without pause, after a change of the network.
    pub fn reconnect(&self) {
        self.order(Order::Reconnect);
    }

    /// Tells the server what has changed about this node; beside the stream, and again in every later session.
    pub fn report(&self, report: Report) {
        self.report.send_if_modified(|current| {
            let changed = *current != report;
            *current = report;
            changed
        });
    }

    fn order(&self, order: Order) {
        // The task ends only when the event loop has dropped its receiver: then nobody is left to tell.
        let _ = self.orders.send(order);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
