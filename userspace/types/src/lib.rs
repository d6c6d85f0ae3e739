//! The newtypes every layer shares: keys, ids, overlay address ranges.
//!
//! Plain values with a text form each. No IO, no clock, no random source: key bytes are drawn by the shells and come in
//! as arguments. Deliberately not here: anything that is a message on some wire (see `wire`).

mod id;
mod key;
pub mod overlay;

pub use id::{CapabilityVersion, NodeId, RegionId, StableNodeId, UserId, Vni};
pub use key::{
    ChallengePrivate, ChallengePublic, DiscoPrivate, DiscoPublic, KeyError, MachinePrivate, MachinePublic,
    MeshKey, NodePrivate, NodePublic, SharedSecret,
};
