//! Every map of the object. All are pinned by name by the loader and outlive it.
//!
//! Hash maps are not preallocated, so that a small filter and a quiet network cost little memory.

use abi::{ANSWERED_RING, BUCKETS, DiscoPeer, KeyWords, MAX_DISCO_PEERS, Nonces, Shield};
use abi::{
    AddressKey, Arrival, Config, Counter, DEFAULT_PLACES, Endpoint, FLOW_REGIONS, FlowKey, FlowRegion,
    FlowTimes, Gateway, InnerKey, Inward, Lan, MAX_ATTACHMENTS, MAX_DETOURS, MAX_FLOWS, MAX_PAIRS,
    MAX_PEER_PREFIXES, MAX_PREFIXES, MAX_RANGES, MAX_RELAY_SESSIONS, MAX_ROUTES, Next, OWN_PLACES, Object,
    OuterKey, Outward, Own, Owner, PLACE_REGIONS, PairKey, PeerKey, Place, PortRange, Program, REASONS,
    RelaySession, RelayUses, STUN_BUCKETS, Session, SessionKey, Span, StunSettings,
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf},
};
use packet::crypto::{Hash, Sealed};

/// Ports and trace switches.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// Generation of the filter in force; zero: none. Storing here is what switches filters.
#[map]
pub static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// Classes of single addresses, looked up first.
#[map]
pub static HOSTS: HashMap<AddressKey, u32> = HashMap::with_max_entries(2 * MAX_PREFIXES, BPF_F_NO_PREALLOC);

/// Classes of prefixes.
#[map]
pub static PREFIXES: LpmTrie<AddressKey, u32> = LpmTrie::with_max_entries(2 * MAX_PREFIXES, 0);

/// What one class may do to another.
#[map]
pub static PAIRS: HashMap<PairKey, Span> = HashMap::with_max_entries(2 * MAX_PAIRS, BPF_F_NO_PREALLOC);

/// The ranges that `PAIRS` points into; odd generations use the upper half.
#[map]
pub static RANGES: Array<PortRange> = Array::with_max_entries(2 * MAX_RANGES, 0);

/// Outbound flows and when they sent.
#[map]
pub static FLOWS: HashMap<FlowKey, FlowTimes> = HashMap::with_max_entries(MAX_FLOWS, BPF_F_NO_PREALLOC);

/// The places flows occupy: what bounds them, and each peer's share.
#[map]
pub static FLOW_RING: Array<FlowKey> = Array::with_max_entries(MAX_FLOWS, 0);

/// The next place of each region of the ring.
#[map]
pub static FLOW_REGION: Array<FlowRegion> = Array::with_max_entries(FLOW_REGIONS, 0);

/// Which peer an address is routed to.
#[map]
pub static PEERS: LpmTrie<PeerKey, u32> = LpmTrie::with_max_entries(MAX_PEER_PREFIXES, 0);

/// What the endpoints that WireGuard believes in are on the wire.
#[map]
pub static DETOURS_OUT: HashMap<Endpoint, Outward> =
    HashMap::with_max_entries(MAX_DETOURS, BPF_F_NO_PREALLOC);

/// And back.
#[map]
pub static DETOURS_IN: HashMap<Arrival, Inward> = HashMap::with_max_entries(MAX_DETOURS, BPF_F_NO_PREALLOC);

/// The programs that `underlay` jumps to.
#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(Next::ALL.len() as u32, 0);

/// The peers whose DISCO pings are known, by DISCO key.
#[map]
pub static DISCO_PEERS: HashMap<KeyWords, DiscoPeer> =
    HashMap::with_max_entries(MAX_DISCO_PEERS, BPF_F_NO_PREALLOC);

/// What makes nonces, one a CPU.
#[map]
pub static NONCES: PerCpuArray<Nonces> = PerCpuArray::with_max_entries(1, 0);

/// Room for opening a ping and sealing its pong: more than a stack has.
#[map]
pub static SEALED: PerCpuArray<Sealed> = PerCpuArray::with_max_entries(1, 0);

/// Room for hashing a handshake, for the same reason.
#[map]
pub static HASH: PerCpuArray<Hash> = PerCpuArray::with_max_entries(1, 0);

/// Pings that were answered, for the controller.
#[map]
pub static ANSWERED: RingBuf = RingBuf::with_byte_size(ANSWERED_RING, 0);

/// When the token buckets of sources and of known peers are full again.
#[map]
pub static BUCKETS_FULL: Array<u64> = Array::with_max_entries(BUCKETS, 0);

/// The key of our handshakes' first MAC, and the switch.
#[map]
pub static SHIELD: Array<Shield> = Array::with_max_entries(1, 0);

/// The program that `from_tunnel` goes on in where something is forwarded.
#[map]
pub static FORWARD: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Packets and bytes by program and reason.
#[map]
pub static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(Program::ALL.len() as u32 * REASONS, 0);

/// The loader's: which build is attached. No program reads it.
#[map]
pub static OBJECT: Array<Object> = Array::with_max_entries(1, 0);

/// The loader's: interface index to the programs attached there by clsact, which has no links to pin.
#[map]
pub static CLSACT: HashMap<u32, u32> = HashMap::with_max_entries(MAX_ATTACHMENTS, BPF_F_NO_PREALLOC);

/// The relay's sessions, by place. What may be mapped begins on a page, so that each value has cache lines of its own.
#[map]
pub static RELAY_SESSIONS: Array<RelaySession> = Array::with_max_entries(MAX_RELAY_SESSIONS, BPF_F_MMAPABLE);

/// What became of the packets of each session, and where they go, by the session's place.
#[map]
pub static RELAY_USE: Array<RelayUses> = Array::with_max_entries(MAX_RELAY_SESSIONS, BPF_F_MMAPABLE);

/// Devices that frames may be sent out of, by interface index.
#[map]
pub static OUTLETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_ATTACHMENTS, BPF_F_NO_PREALLOC);

/// Addresses of ours on each device, by place.
#[map]
pub static OWN: Array<Own> = Array::with_max_entries(OWN_PLACES, 0);

/// How STUN requests are answered.
#[map]
pub static STUN: Array<StunSettings> = Array::with_max_entries(1, 0);

/// When what each source has asked will have been paid for, in nanoseconds since boot.
#[map]
pub static STUN_PAID: Array<u64> = Array::with_max_entries(STUN_BUCKETS, 0);
/// What the gateway does; zero: nothing.
#[map]
pub static GATEWAY: Array<Gateway> = Array::with_max_entries(1, 0);

/// The devices of the LAN side, by interface index.
#[map]
pub static LANS: HashMap<u32, Lan> = HashMap::with_max_entries(MAX_ATTACHMENTS, BPF_F_NO_PREALLOC);

/// What we forward to, and whether the source is translated.
#[map]
pub static ROUTES: LpmTrie<PeerKey, u32> = LpmTrie::with_max_entries(MAX_ROUTES, 0);

/// Sessions from both edges. The loader may give this and the next ones other sizes.
#[map]
pub static SESSIONS: HashMap<SessionKey, Session> =
    HashMap::with_max_entries(3 * DEFAULT_PLACES, BPF_F_NO_PREALLOC);

/// How each session does; what bounds them.
#[map]
pub static PLACES: Array<Place> = Array::with_max_entries(DEFAULT_PLACES, 0);

/// The next place of each region, and, last, of those for all.
#[map]
pub static PLACE_REGION: Array<FlowRegion> = Array::with_max_entries(PLACE_REGIONS + 1, 0);

/// Outer ports of inner endpoints.
#[map]
pub static MAPPINGS: HashMap<InnerKey, [u8; 2]> =
    HashMap::with_max_entries(DEFAULT_PLACES, BPF_F_NO_PREALLOC);

/// Owners of outer endpoints.
#[map]
pub static OWNERS: HashMap<OuterKey, Owner> = HashMap::with_max_entries(DEFAULT_PLACES, BPF_F_NO_PREALLOC);

/// The datagram whose fragments this CPU is sending out: what the later ones become.
#[map]
pub static TRAIN: PerCpuArray<abi::Train> = PerCpuArray::with_max_entries(2, 0);

/// Room for what a program's stack has none for.
#[map]
pub static WORK: PerCpuArray<packet::nat::Work> = PerCpuArray::with_max_entries(1, 0);
