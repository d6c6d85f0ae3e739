//! The object's maps, opened from their pins.

use abi::{
    AddressKey, Arrival, Config, Counter, Endpoint, FLOW_IDLE_NS, FlowKey, FlowTimes, Gateway, Inward, Lan,
    Object, Outward, Own, PairKey, PeerKey, Place, PortRange, RelaySession, RelayUses, Span, StunSettings,
};
use abi::{DiscoPeer, KeyWords, Nonces, Shield};
use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};

use crate::Error;
use crate::error::chain;
use crate::pins::Pins;

/// Every map that the loader pins, by its name in the object.
pub(crate) const NAMES: [&str; 40] = [
    "CONFIG",
    "GENERATION",
    "HOSTS",
    "PREFIXES",
    "PAIRS",
    "RANGES",
    "FLOWS",
    "FLOW_RING",
    "FLOW_REGION",
    "PEERS",
    "DETOURS_OUT",
    "DETOURS_IN",
    "NEXT",
    "DISCO_PEERS",
    "NONCES",
    "SEALED",
    "HASH",
    "ANSWERED",
    "BUCKETS_FULL",
    "SHIELD",
    "FORWARD",
    "COUNTERS",
    "OBJECT",
    "CLSACT",
    "RELAY_SESSIONS",
    "RELAY_USE",
    "OUTLETS",
    "OWN",
    "STUN",
    "STUN_PAID",
    "GATEWAY",
    "LANS",
    "ROUTES",
    "SESSIONS",
    "PLACES",
    "PLACE_REGION",
    "MAPPINGS",
    "OWNERS",
    "TRAIN",
    "WORK",
];

/// The maps the loader reads and writes.
pub(crate) struct Maps {
    pub(crate) config: Array<MapData, Config>,
    pub(crate) generation: Array<MapData, u32>,
    pub(crate) hosts: HashMap<MapData, AddressKey, u32>,
    pub(crate) prefixes: LpmTrie<MapData, AddressKey, u32>,
    pub(crate) pairs: HashMap<MapData, PairKey, Span>,
    pub(crate) ranges: Array<MapData, PortRange>,
    pub(crate) flows: HashMap<MapData, FlowKey, FlowTimes>,
    pub(crate) peers: LpmTrie<MapData, PeerKey, u32>,
    pub(crate) disco: HashMap<MapData, KeyWords, DiscoPeer>,
    pub(crate) nonces: PerCpuArray<MapData, Nonces>,
    pub(crate) shield: Array<MapData, Shield>,
    pub(crate) counters: PerCpuArray<MapData, Counter>,
    pub(crate) object: Array<MapData, Object>,
    pub(crate) clsact: HashMap<MapData, u32, u32>,
    pub(crate) detours_out: HashMap<MapData, Endpoint, Outward>,
    pub(crate) detours_in: HashMap<MapData, Arrival, Inward>,
    pub(crate) relay_sessions: Array<MapData, RelaySession>,
    pub(crate) relay_use: Array<MapData, RelayUses>,
    pub(crate) outlets: HashMap<MapData, u32, u32>,
    pub(crate) own: Array<MapData, Own>,
    pub(crate) stun: Array<MapData, StunSettings>,
    pub(crate) gateway: Array<MapData, Gateway>,
    pub(crate) lans: HashMap<MapData, u32, Lan>,
    pub(crate) routes: LpmTrie<MapData, PeerKey, u32>,
    pub(crate) places: Array<MapData, Place>,
}

impl Maps {
    /// Opens the maps of a folder of pins.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            config: open(pins, "CONFIG")?,
            generation: open(pins, "GENERATION")?,
            hosts: open(pins, "HOSTS")?,
            prefixes: open(pins, "PREFIXES")?,
            pairs: open(pins, "PAIRS")?,
            ranges: open(pins, "RANGES")?,
            flows: open(pins, "FLOWS")?,
            peers: open(pins, "PEERS")?,
            disco: open(pins, "DISCO_PEERS")?,
            nonces: open(pins, "NONCES")?,
            shield: open(pins, "SHIELD")?,
            counters: open(pins, "COUNTERS")?,
            object: open(pins, "OBJECT")?,
            clsact: open(pins, "CLSACT")?,
            detours_out: open(pins, "DETOURS_OUT")?,
            detours_in: open(pins, "DETOURS_IN")?,
            relay_sessions: open(pins, "RELAY_SESSIONS")?,
            relay_use: open(pins, "RELAY_USE")?,
            outlets: open(pins, "OUTLETS")?,
            own: open(pins, "OWN")?,
            stun: open(pins, "STUN")?,
            gateway: open(pins, "GATEWAY")?,
            lans: open(pins, "LANS")?,
            routes: open(pins, "ROUTES")?,
            places: open(pins, "PLACES")?,
        })
    }

    /// Changes the settings that programs read with each packet.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let mut config = self.config.get(&0, 0).map_err(Error::map("CONFIG"))?;
        change(&mut config);
        self.config.set(0, config, 0).map_err(Error::map("CONFIG"))
    }

    /// Forgets the flows that have expired. The programs reuse their places anyway; this also mends places that were lost
    /// when the assignment of peers to regions changed under a packet.
    pub(crate) fn sweep_flows(&mut self, now_ns: u64) -> Result<(), Error> {
        let expired: Vec<FlowKey> = self
            .flows
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, times)| now_ns.saturating_sub(times.last) >= FLOW_IDLE_NS)
            .map(|(flow, _)| flow)
            .collect();
        expired.iter().try_for_each(|flow| gone_is_fine(self.flows.remove(flow))).map_err(Error::map("FLOWS"))
    }
}

/// Removing what is not there is no failure.
pub(crate) fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open<T>(pins: &Pins, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = pins.map(name);
    let data =
        MapData::from_pin(&path).map_err(|error| Error::Pin { path: path.clone(), cause: chain(&error) })?;
    let map = Map::from_map_data(data).map_err(Error::map(name))?;
    T::try_from(map).map_err(Error::map(name))
}

/// A prefix as the key of an LPM map: bits before the address and those of the prefix, then the data.
pub(crate) fn lpm_key<K: Pod>(head_bits: u32, net: &ipnet::IpNet, data: K) -> aya::maps::lpm_trie::Key<K> {
    aya::maps::lpm_trie::Key::new(head_bits + u32::from(net.prefix_len()), data)
}

/// An address as packets carry it.
pub(crate) fn address(ip: std::net::IpAddr) -> (abi::Family, abi::Address) {
    match ip {
        std::net::IpAddr::V4(ip) => (abi::Family::V4, [u32::from_ne_bytes(ip.octets()), 0, 0, 0]),
        std::net::IpAddr::V6(ip) => {
            let mut words = [0; 4];
            for (word, four) in words.iter_mut().zip(ip.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
            }
            (abi::Family::V6, words)
        }
    }
}

/// An address of packets.
pub(crate) fn ip_address(family: abi::Family, address: abi::Address) -> std::net::IpAddr {
    let octets = address.map(u32::to_ne_bytes);
    match family {
        abi::Family::V4 => octets[0].into(),
        abi::Family::V6 => std::array::from_fn::<u8, 16, _>(|at| octets[at / 4][at % 4]).into(),
    }
}
