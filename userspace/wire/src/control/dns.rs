//! Name resolution as the server configures it (`tailcfg.DNSConfig`), and the ACME record a node asks to set.

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::{CapabilityVersion, NodePublic};

use super::message::message;

message! {
    /// The node's resolver settings.
    pub struct DnsConfig {
        /// Resolvers for everything else, in order of preference.
        pub resolvers: Vec<Resolver> = "Resolvers" omitempty,
        /// Suffix to its resolvers; none (or `null`) means the node answers for it itself.
        pub routes: BTreeMap<String, Option<Vec<Resolver>>> = "Routes" omitempty,
        /// Used when `resolvers` is empty and the operating system cannot split.
        pub fallback_resolvers: Vec<Resolver> = "FallbackResolvers" omitempty,
        /// Search domains, the network's own first.
        pub domains: Vec<String> = "Domains" omitempty,
        /// MagicDNS is on.
        pub proxied: bool = "Proxied" omitzero,
        /// Old form of `resolvers`.
        pub nameservers: Vec<IpAddr> = "Nameservers" omitempty,
        /// Names for which the node may ask for certificates.
        pub cert_domains: Vec<String> = "CertDomains" omitempty,
        /// Records to answer beside those of the nodes.
        pub extra_records: Vec<DnsRecord> = "ExtraRecords" omitempty,
        /// Suffixes that an exit node must not resolve for others.
        pub exit_node_filtered_set: Vec<String> = "ExitNodeFilteredSet" omitempty,
        /// A knob of Tailscale's own, carried along.
        pub temp_corp_issue_13969: String = "TempCorpIssue13969" omitzero,
    }

    /// A resolver (`types/dnstype.Resolver`).
    pub struct Resolver {
        /// IP, IP and port, or an `https://` URL.
        pub addr: String = "Addr" omitempty,
        /// Addresses of the host in that URL.
        pub bootstrap_resolution: Vec<IpAddr> = "BootstrapResolution" omitempty,
        /// Keep using it while an exit node is in use.
        pub use_with_exit_node: bool = "UseWithExitNode" omitempty,
    }

    /// A record to answer.
    pub struct DnsRecord {
        /// Fully qualified name.
        pub name: String = "Name",
        /// Type; empty is A or AAAA, by the value.
        pub kind: String = "Type" omitzero,
        /// Value in text form.
        pub value: String = "Value",
    }

    /// `POST /machine/set-dns`: publish an ACME challenge.
    pub struct SetDnsRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version",
        /// Who asks.
        pub node_key: NodePublic = "NodeKey",
        /// Name of the record.
        pub name: String = "Name",
        /// Type, `TXT`.
        pub kind: String = "Type",
        /// Value.
        pub value: String = "Value",
    }
}
