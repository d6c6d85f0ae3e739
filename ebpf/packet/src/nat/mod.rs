//! The gateway: sessions, address and port translation, and what packets become.
//!
//! Translation is by RFC 4787 (UDP), 5382 (TCP), 5508 (ICMP) and 7857 (timers); the table of requirements is in
//! `docs/gateway.md`. Everything is a function of a packet, a time and tables, so that host tests, a model and the kernel
//! run the same code. Deliberately not here: fragments other than first ones (the stack reassembles them), and which device
//! a packet leaves by.

mod delta;
mod icmp;
mod port;
mod prefix;
mod rewrite;
mod session;
mod tcp;
mod tuple;

pub use delta::Delta;
pub use icmp::{Inner, inner, rewrite_error};
pub use port::candidate;
pub use prefix::Prefixes;
pub use rewrite::{End, Summed, rewrite};
pub use session::{Refusal, Tables, Work, admit, enter, find, is_over, occupy, open, take, touch};
pub use tcp::{Way, advance, is_established};
pub use tuple::{FIN, RST, SYN, Tuple, lan_key, tunnel_key, tuple};
