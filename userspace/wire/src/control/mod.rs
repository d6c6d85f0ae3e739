//! The control protocol's messages: Tailscale's `tailcfg` as owned Rust structs, for both ends.
//!
//! Written as Go writes them (names, order, what is left out), read as generously as Go reads them and a little more:
//! `null` and missing fields are zero values, unknown fields and enum values pass, the spellings of the tailscale-rs
//! client are understood. One file a noun. Deliberately not here: Noise (`ts2021`), and what a message means.

mod addr;
mod blob;
mod cap_map;
mod derp_map;
mod dns;
mod filter;
mod framing;
mod health;
mod hostinfo;
mod map_request;
mod map_response;
mod message;
mod node;
mod ping;
mod register;
mod server_key;
#[cfg(test)]
mod tests;
mod time;
mod tolerant;
mod user;

pub use addr::Addr;
pub use blob::Blob;
pub use cap_map::{CapMap, Raw};
pub use derp_map::{
    DerpAdmitClientRequest, DerpAdmitClientResponse, DerpHomeParams, DerpMap, DerpNode, DerpRegion,
};
pub use dns::{DnsConfig, DnsRecord, Resolver, SetDnsRequest};
pub use filter::{CapGrant, FilterRule, NetPortRange, PortRange};
pub use framing::{FrameError, Frames, encode_frame};
pub use health::{DisplayMessage, DisplayMessageAction, HealthChangeRequest, Severity};
pub use hostinfo::{Hostinfo, Location, NetInfo, Service, TpmInfo};
pub use map_request::{EndpointType, MapRequest};
pub use map_response::{
    ClientVersion, ControlDialPlan, ControlIpCandidate, DebugSettings, MapResponse, TkaInfo,
};
pub use node::{Node, PeerChange};
pub use ping::{PingRequest, PingResponse};
pub use register::{AuthKey, RegisterAuth, RegisterRequest, RegisterResponse};
pub use server_key::{EarlyNoise, OverTlsPublicKeyResponse, TokenRequest, TokenResponse};
pub use time::Time;
pub use tolerant::Tolerant;
pub use user::{Login, User, UserProfile};
