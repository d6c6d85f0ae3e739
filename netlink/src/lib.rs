//! Netlink: links, addresses, routes, rules, neighbors, WireGuard devices and one nftables table, as typed async calls.
//!
//! A [`Handle`] is two sockets (routing and generic netlink) opened in the network namespace of the thread that calls
//! [`Handle::open`], and it stays in that namespace whatever thread uses it later. It clones cheaply. Every call names
//! its object in its error and carries the kernel's own extended-ack text. [`Watch`] is a socket of its own.
//! Deliberately not here: what the objects are for (the crate knows nothing of the product), retries, and desired state
//! (`dataplane` diffs and calls).

mod address;
mod error;
mod handle;
mod kernel;
mod link;
mod neighbor;
mod netdev;
mod nft;
mod nft_watch;
pub mod offload;
mod route;
mod rule;
mod socket;
pub mod sysctl;
mod uapi;
mod watch;
pub mod wireguard;

pub use address::Address;
pub use error::{Error, Result};
pub use handle::Handle;
pub use link::{Kind, Link, LinkChange};
pub use neighbor::{Neighbor, Reachability};
pub use nft::{Family as TableFamily, Table};
pub use route::{Route, RouteChange, RouteKind};
pub use rule::{Action, Family, Mark, Rule};
pub use watch::{Event, Watch};
