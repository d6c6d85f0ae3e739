//! The kernel's side of a node: programs, filters and everything `Desired` describes.
//!
//! [`Programs`] loads the eBPF object once and finds it again after a restart: maps, programs and links are pinned, so
//! the process may die at any moment and packets keep moving under the same filter. [`Compiled`] is the packet filter as
//! tables, a pure function of node-core's [`Filter`](node_core::filter::Filter). Deliberately not here: what the
//! programs decide (`ebpf/packet`), what the kernel should be (`node-core`), sockets and timers (`node`).

mod apply;
mod attach;
mod batch;
mod clock;
mod compile;
mod counters;
mod detours;
mod disco;
mod error;
mod gateway;
mod install;
mod link;
mod load;
mod maps;
mod object;
mod observe;
mod peers;
mod pinned_routes;
mod pins;
mod reconcile;
mod relay;
mod shield;
mod steering;
mod stun;
mod trace;
mod wrap;

pub use abi::{DEFAULT_PLACES as DEFAULT_FLOWS, MARK_REFUSED as REFUSED_MARK};
pub use abi::{Hook, Program, Reason, Verdict};
pub use apply::{Applier, Cause, Failure, peers, remove_rules};
pub use attach::{Attachment, Mechanism, NoXdp};
pub use compile::{Compiled, compile};
pub use counters::Count;
pub use detours::{Relayed, Rewritten};
pub use disco::{AnsweredPing, AnsweredReader};
pub use error::Error;
pub use gateway::{Filtering, GatewayPlan, LanPlan, NAT_PORTS};
pub use install::Generation;
pub use load::{Origin, Programs, Rest, Spare};
pub use observe::{Observed, ObservedPeer};
pub use reconcile::{PROTOCOL, Settings, Step, reconcile};
pub use relay::{RelayLeg, RelayTraffic, RelayedSession};
pub use steering::{Device, Steer, Steering};
pub use stun::StunService;
pub use trace::{TraceReader, TraceRecord, TraceSettings};
pub use wrap::{ensure_wrap, remove_wrap};
