//! The sans-IO node: everything that decides, nothing that does.
//!
//! The shell feeds a [`Node`] with what arrives (`handle_*`: map responses, datagrams, DERP packets, dumps of the WireGuard
//! device) and the current time, then drains `poll_transmit` and `poll_event`, compares `desired` with the kernel when
//! told to, and calls `handle_timeout` at the instant `poll_timeout` names. The same inputs and the same seed give the
//! same outputs, so every path decision is tested in virtual time (`tests/`).
//!
//! | file | noun |
//! |---|---|
//! | `node` | the glue: inputs routed to the nouns below |
//! | `input`, `output` | plain values in and out |
//! | `netmap` | the last good map, deltas folded in |
//! | `underlay`, `path` | the machine's uplinks, and by which of them an address is reached |
//! | `peers`, `peer`, `paths`, `origin`, `score` | a peer's candidates, pings, trust and choice |
//! | `relays`, `detours`, `grants` | places on peer relays, the kernel's endpoints for them, who may ask whom |
//! | `vouch` | whether the kernel may answer a peer's pings by itself |
//! | `disco`, `rng` | boxes a key, random bytes from the seed |
//! | `pins`, `sides` | several uplinks: routes for WireGuard, STUN by the others |
//! | `endpoints`, `netcheck`, `report`, `derp_home` | our own candidates, STUN, the home region |
//! | `explain` | why a path is used, for people |
//! | `pulse` | whether the path in use is alive |
//! | `desired`, `routes`, `rules`, `filter` | what the kernel should be |
//! | `slots`, `timers`, `health`, `status` | loopback addresses, wakes, warnings, the local API's view |
//!
//! Deliberately not here: sockets, clocks, files, random numbers; netlink and eBPF (`dataplane`); the control connection
//! (`transport`, `node`); TSMP and ICMP pings, which are packets in the tunnel and the shell's to send.

mod derp_home;
mod desired;
mod detours;
mod disco;
mod endpoints;
mod explain;
pub mod filter;
mod grants;
mod health;
mod input;
mod netcheck;
mod netmap;
mod node;
mod origin;
mod output;
mod path;
mod paths;
mod peer;
mod peers;
mod pins;
mod pulse;
mod relays;
mod report;
mod rng;
mod routes;
mod rules;
mod score;
mod sides;
mod slots;
mod status;
mod timers;
mod underlay;
mod vouch;

pub use desired::{Desired, DesiredPeer};
pub use detours::Detour;
pub use endpoints::Endpoint;
pub use explain::{Explanation, Verdict, Way};
pub use health::Warning;
pub use input::{Clock, Config, DerpState, ObservedPeer, PortMapping, Prefs};
pub use node::{Node, Whois};
pub use output::{Carry, Event, FromDerp, PingError, PingId, Pong, Transmit, Via};
pub use path::{Path, Uplink};
pub use report::Report;
pub use score::{Kind, Score};
pub use slots::Slot;
pub use status::PeerStatus;
pub use timers::Wake;
pub use underlay::{Hop, Underlay};
pub use vouch::DiscoPeer;
