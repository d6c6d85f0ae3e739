//! What a machine says about itself (`tailcfg.Hostinfo`, `tailcfg.NetInfo`, `tailcfg.Service`, `tailcfg.Location`).
//!
//! The spellings after `|` are what the client of tailscale-rs sends.

use std::collections::BTreeMap;

use ipnet::IpNet;
use types::{RegionId, StableNodeId};

use super::message::message;

message! {
    /// A machine. Peers see a part of it.
    pub struct Hostinfo {
        /// Version of the client.
        pub ipn_version: String = "IPNVersion" | "IpnVersion" omitzero,
        /// Log id of the user interface.
        pub frontend_log_id: String = "FrontendLogID" | "FrontendLogId" omitzero,
        /// Log id of the daemon; a stock server refuses a registration without one.
        pub backend_log_id: String = "BackendLogID" | "BackendLogId" omitzero,
        /// Operating system, as Go names it: `linux`.
        pub os: String = "OS" | "Os" omitzero,
        /// Its version.
        pub os_version: String = "OSVersion" | "OsVersion" omitzero,
        /// Whether it runs in a container.
        pub container: Option<bool> = "Container" omitzero,
        /// Hosting environment, such as `k8s`.
        pub env: String = "Env" omitzero,
        /// Distribution.
        pub distro: String = "Distro" omitzero,
        /// Its version.
        pub distro_version: String = "DistroVersion" omitzero,
        /// Its code name.
        pub distro_code_name: String = "DistroCodeName" omitzero,
        /// What embeds the client, if not the daemon.
        pub app: String = "App" omitzero,
        /// Whether a desktop was found.
        pub desktop: Option<bool> = "Desktop" omitzero,
        /// How the client was packaged.
        pub package: String = "Package" omitzero,
        /// Model of a phone or appliance.
        pub device_model: String = "DeviceModel" omitzero,
        /// Token for push messages.
        pub push_device_token: String = "PushDeviceToken" omitzero,
        /// Name of the host, as the host spells it.
        pub hostname: String = "Hostname" omitzero,
        /// Refuses all incoming connections.
        pub shields_up: bool = "ShieldsUp" omitzero,
        /// Shared in from another network (set by the server).
        pub sharee_node: bool = "ShareeNode" omitzero,
        /// The user has switched logs off.
        pub no_logs_no_support: bool = "NoLogsNoSupport" omitzero,
        /// Control may change settings.
        pub remote_config: bool = "RemoteConfig" omitzero,
        /// Wishes to be wired for Funnel.
        pub wire_ingress: bool = "WireIngress" omitzero,
        /// Has a Funnel endpoint.
        pub ingress_enabled: bool = "IngressEnabled" omitzero,
        /// The administrator may start updates.
        pub allows_update: bool = "AllowsUpdate" omitzero,
        /// Machine type as `uname` names it.
        pub machine: String = "Machine" omitzero,
        /// Architecture as Go names it.
        pub go_arch: String = "GoArch" omitzero,
        /// Its variant.
        pub go_arch_var: String = "GoArchVar" omitzero,
        /// Version of Go.
        pub go_version: String = "GoVersion" omitzero,
        /// Prefixes it offers to route.
        pub routable_ips: Vec<IpNet> = "RoutableIPs" | "RoutableIps" omitempty,
        /// Tags it wishes to have.
        pub request_tags: Vec<String> = "RequestTags" omitempty,
        /// Hardware addresses for Wake-on-LAN.
        pub wol_macs: Vec<String> = "WoLMACs" | "WolMacs" | "WakeOnLanMacs" omitempty,
        /// Services, the PeerAPI among them.
        pub services: Vec<Service> = "Services" omitempty,
        /// Its network.
        pub net_info: Option<NetInfo> = "NetInfo" omitzero,
        /// SSH host keys.
        pub ssh_host_keys: Vec<String> = "sshHostKeys" | "SshHostKeys" omitempty,
        /// Cloud it runs in.
        pub cloud: String = "Cloud" omitzero,
        /// Whether packets go through a userspace network stack.
        pub userspace: Option<bool> = "Userspace" omitzero,
        /// Whether subnet routing does.
        pub userspace_router: Option<bool> = "UserspaceRouter" omitzero,
        /// Runs an app connector.
        pub app_connector: Option<bool> = "AppConnector" omitzero,
        /// Hash of the services it hosts.
        pub services_hash: String = "ServicesHash" omitzero,
        /// Is willing to relay for peers.
        pub peer_relay: bool = "PeerRelay" omitzero,
        /// The exit node it uses.
        pub exit_node_id: StableNodeId = "ExitNodeID" | "ExitNodeId" omitzero,
        /// Where it stands.
        pub location: Option<Location> = "Location" omitzero,
        /// Its TPM.
        pub tpm: Option<TpmInfo> = "TPM" | "Tpm" omitzero,
        /// Whether the state file is encrypted.
        pub state_encrypted: Option<bool> = "StateEncrypted" omitzero,
    }

    /// A TPM 2.0, as it describes itself.
    pub struct TpmInfo {
        /// Four-letter manufacturer.
        pub manufacturer: String = "Manufacturer" omitzero,
        /// Vendor text.
        pub vendor: String = "Vendor" omitzero,
        /// Model number.
        pub model: i64 = "Model" omitzero,
        /// Firmware version.
        pub firmware_version: u64 = "FirmwareVersion" omitzero,
        /// Revision of the specification.
        pub spec_revision: i64 = "SpecRevision" omitzero,
        /// Family of the specification.
        pub family_indicator: String = "FamilyIndicator" omitzero,
    }

    /// A service a node runs.
    pub struct Service {
        /// `tcp`, `udp`, `peerapi4`, `peerapi6`, `peerapi-dns-proxy`, or one not yet known.
        pub proto: String = "Proto",
        /// Port; for `peerapi-dns-proxy` just a flag.
        pub port: u16 = "Port",
        /// What it is.
        pub description: String = "Description" omitempty,
    }

    /// Where a node stands on earth.
    pub struct Location {
        /// Country for display.
        pub country: String = "Country" omitempty,
        /// ISO 3166-1 alpha-2.
        pub country_code: String = "CountryCode" omitempty,
        /// City for display.
        pub city: String = "City" omitempty,
        /// Code of the city.
        pub city_code: String = "CityCode" omitempty,
        /// Degrees north.
        pub latitude: f64 = "Latitude" omitempty,
        /// Degrees east.
        pub longitude: f64 = "Longitude" omitempty,
        /// Preference among exit nodes; higher is better.
        pub priority: i64 = "Priority" omitempty,
    }

    /// What a node has found out about its own network.
    pub struct NetInfo {
        /// The NAT gives another mapping for another destination.
        pub mapping_varies_by_dest_ip: Option<bool>
            = "MappingVariesByDestIP" | "MappingVariesByDestIp" omitzero,
        /// IPv6 reaches the Internet.
        pub working_ipv6: Option<bool> = "WorkingIPv6" | "WorkingIpv6" omitzero,
        /// The kernel has IPv6.
        pub os_has_ipv6: Option<bool> = "OSHasIPv6" | "OsHasIpv6" omitzero,
        /// UDP reaches the Internet.
        pub working_udp: Option<bool> = "WorkingUDP" | "WorkingUdp" omitzero,
        /// ICMPv4 reaches the Internet.
        pub working_icmpv4: Option<bool> = "WorkingICMPv4" | "WorkingIcmpv4" omitzero,
        /// The router has mapped a port.
        pub have_port_map: bool = "HavePortMap" omitzero,
        /// The router offers UPnP.
        pub upnp: Option<bool> = "UPnP" | "Upnp" omitzero,
        /// The router offers NAT-PMP.
        pub pmp: Option<bool> = "PMP" | "Pmp" omitzero,
        /// The router offers PCP.
        pub pcp: Option<bool> = "PCP" | "Pcp" omitzero,
        /// The node's home region.
        pub preferred_derp: RegionId = "PreferredDERP" | "PreferredDerp" omitzero,
        /// `wired`, `wifi` or `mobile`.
        pub link_type: String = "LinkType" omitzero,
        /// Seconds to regions; keys are the region and `-v4` or `-v6`.
        pub derp_latency: BTreeMap<String, f64> = "DERPLatency" | "DerpLatency" omitempty,
        /// Which firewall the client drives, such as `nft-forced`.
        pub firewall_mode: String = "FirewallMode" omitzero,
    }
}
