//! Where the relays are (`tailcfg.DERPMap`), and the relay's question whom to admit.

use std::collections::BTreeMap;

use types::{NodePublic, RegionId};

use super::Addr;
use super::message::message;

/// The STUN port where a node's `stun_port` is 0.
const DEFAULT_STUN_PORT: u16 = 3478;

message! {
    /// Regions, each a set of relays that know each other's clients.
    pub struct DerpMap {
        /// Bends the choice of the home region.
        pub home_params: Option<DerpHomeParams> = "HomeParams" omitempty,
        /// Region by number; `null` takes one out of the defaults.
        pub regions: BTreeMap<RegionId, Option<DerpRegion>> = "Regions",
        /// Do not add the regions built into the client.
        pub omit_default_regions: bool = "omitDefaultRegions" | "OmitDefaultRegions" omitempty,
    }

    /// Parameters of the choice of a home region.
    pub struct DerpHomeParams {
        /// Factor on a region's latency: below 1 is liked, above 1 is not.
        pub region_score: BTreeMap<RegionId, f64> = "RegionScore" omitempty,
    }

    /// A place with one or more relays.
    pub struct DerpRegion {
        /// Number; 900-999 are free for users.
        pub region_id: RegionId = "RegionID" | "RegionId",
        /// Short name.
        pub region_code: String = "RegionCode",
        /// Name for display.
        pub region_name: String = "RegionName",
        /// Degrees north.
        pub latitude: f64 = "Latitude" omitempty,
        /// Degrees east.
        pub longitude: f64 = "Longitude" omitempty,
        /// Old form of `no_measure_no_home`, without the measuring.
        pub avoid: bool = "Avoid" omitempty,
        /// Never measured, never a home; still used to reach those who have it.
        pub no_measure_no_home: bool = "NoMeasureNoHome" omitempty,
        /// Relays, in order of preference.
        pub nodes: Vec<DerpNode> = "Nodes",
    }

    /// A relay.
    pub struct DerpNode {
        /// Unique name.
        pub name: String = "Name",
        /// Its region.
        pub region_id: RegionId = "RegionID" | "RegionId",
        /// Name to dial and to check the certificate against.
        pub host_name: String = "HostName" | "Hostname",
        /// Other name in the certificate, or `sha256-raw:` and the certificate's hash in hex.
        pub cert_name: String = "CertName" omitempty,
        /// Address instead of DNS; `none` forbids the family.
        pub ipv4: String = "IPv4" | "Ipv4" omitempty,
        /// Address instead of DNS; `none` forbids the family.
        pub ipv6: String = "IPv6" | "Ipv6" omitempty,
        /// 0 is 3478, -1 is none; see [`DerpNode::stun`].
        pub stun_port: i32 = "STUNPort" | "StunPort" omitempty,
        /// Answers STUN only.
        pub stun_only: bool = "STUNOnly" | "StunOnly" omitempty,
        /// 0 is 443.
        pub derp_port: u16 = "DERPPort" | "DerpPort" omitempty,
        /// TLS is not verified; tests only.
        pub insecure_for_tests: bool = "InsecureForTests" omitempty,
        /// Address for STUN in tests.
        pub stun_test_ip: String = "STUNTestIP" | "StunTestIp" omitempty,
        /// Also speaks plain HTTP on port 80, for captive-portal checks.
        pub can_port_80: bool = "CanPort80" omitempty,
    }

    /// What a relay asks its control server (`POST /verify`).
    pub struct DerpAdmitClientRequest {
        /// Who wants in.
        pub node_public: NodePublic = "NodePublic",
        /// From where.
        pub source: Addr = "Source",
    }

    /// The answer.
    pub struct DerpAdmitClientResponse {
        /// Whether to let it in.
        pub allow: bool = "Allow",
    }
}

impl DerpMap {
    /// The regions that are there, by number.
    pub fn present(&self) -> impl Iterator<Item = (RegionId, &DerpRegion)> {
        self.regions.iter().filter_map(|(id, region)| Some((*id, region.as_ref()?)))
    }
}

impl DerpNode {
    /// The STUN port, unless the node has none.
    pub fn stun(&self) -> Option<u16> {
        match self.stun_port {
            0 => Some(DEFAULT_STUN_PORT),
            port => u16::try_from(port).ok(),
        }
    }

    /// The port of DERP over TLS.
    pub fn derp(&self) -> u16 {
        if self.derp_port == 0 { 443 } else { self.derp_port }
    }
}
