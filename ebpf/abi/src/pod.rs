//! Marks the ABI as plain bytes for the loader.
#![expect(unsafe_code, reason = "aya's marker trait is unsafe to implement")]

use crate::{
    AddressKey, Config, Counter, FlowKey, FlowRegion, FlowTimes, Gateway, InnerKey, Lan, Object, OuterKey,
    Own, Owner, PairKey, PeerKey, Place, PortRange, RelaySession, RelayUses, Session, SessionKey, Span,
    StunSettings, Train,
};

macro_rules! pod {
    ($($name:ident)*) => {$(
        // SAFETY: `repr(C)`, integers only, every byte belongs to a field, and any bytes are a valid value.
        unsafe impl aya::Pod for $name {}
    )*};
}

pod! {
    AddressKey Config Counter FlowKey FlowRegion FlowTimes Gateway InnerKey Lan Object OuterKey Own Owner PairKey PeerKey Place PortRange RelaySession RelayUses Session SessionKey Span StunSettings Train
}
