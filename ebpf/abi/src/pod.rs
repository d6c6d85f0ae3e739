//! Marks the ABI as plain bytes for the loader.
#![expect(unsafe_code, reason = "aya's marker trait is unsafe to implement")]

use crate::{
    AddressKey, Answered, Arrival, Config, Counter, DiscoPeer, Endpoint, FlowKey, FlowRegion, FlowTimes,
    Gateway, InnerKey, Inward, Lan, Nonces, Object, OuterKey, Outward, Own, Owner, PairKey, PeerKey, Place,
    PortRange, RelaySession, RelayUses, Session, SessionKey, Shield, Span, StunSettings, Train,
};

macro_rules! pod {
    ($($name:ident)*) => {$(
        // SAFETY: `repr(C)`, integers only, every byte belongs to a field, and any bytes are a valid value.
        unsafe impl aya::Pod for $name {}
    )*};
}

pod! {
    AddressKey Answered Arrival Config Counter DiscoPeer Endpoint FlowKey FlowRegion FlowTimes Gateway InnerKey Inward Lan Nonces Object OuterKey Outward
    Own Owner PairKey PeerKey Place PortRange RelaySession RelayUses Session SessionKey Shield Span StunSettings Train
}
