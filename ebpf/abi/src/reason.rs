//! Why a program let a packet pass, dropped it or handed it to the controller.
//!
//! One enum is the verdict, the index of the counter, the label of the metric and the text of the CLI, so that they can
//! never disagree. Labels are Tailscale's where Tailscale has one (`util/usermetric/metrics.go`).

/// A program of the object; the order is the layout of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Program {
    /// Underlay ingress: DISCO and STUN go to the controller.
    Steer = 0,
    /// Tunnel ingress: the packet filter.
    FromTunnel = 1,
    /// Tunnel egress: remembers outbound flows, so that their replies pass.
    IntoTunnel = 2,
    /// Underlay ingress ahead of the stack, where the driver can: says which program a packet is for.
    Underlay = 3,
    /// Behind `underlay`: answers DISCO pings.
    Disco = 4,
    /// Behind `underlay`: forwards between the two ends of a relay session.
    Relay = 5,
    /// Behind `underlay`: answers STUN binding requests.
    Stun = 6,
    /// LAN ingress: answers to the gateway's sessions.
    ToTunnel = 7,
    /// LAN egress: translates what the stack forwards from the tunnel.
    IntoLan = 8,
    /// Behind `underlay`: drops what cannot be valid, or comes too often, on WireGuard's port.
    Shield = 9,
    /// Underlay egress, while there are detours: where WireGuard's packets really go.
    Egress = 10,
    /// Behind `egress`, on a device of our own: the relay's header.
    Wrap = 11,
    /// Behind `from_tunnel` where something is forwarded: the filter, and the short way out.
    Forward = 12,
}

/// The kernel's hook a program is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// XDP, in the driver.
    Xdp,
    /// TC on the way in.
    Ingress,
    /// TC on the way out.
    Egress,
}

impl Program {
    /// Every program.
    pub const ALL: [Self; 13] = [
        Self::Steer,
        Self::FromTunnel,
        Self::IntoTunnel,
        Self::Underlay,
        Self::Disco,
        Self::Relay,
        Self::Stun,
        Self::ToTunnel,
        Self::IntoLan,
        Self::Shield,
        Self::Egress,
        Self::Wrap,
        Self::Forward,
    ];

    /// The program's name: its symbol in the object, its pin and its metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steer => "steer",
            Self::FromTunnel => "from_tunnel",
            Self::IntoTunnel => "into_tunnel",
            Self::Underlay => "underlay",
            Self::Disco => "disco",
            Self::Relay => "relay",
            Self::Stun => "stun",
            Self::ToTunnel => "to_tunnel",
            Self::IntoLan => "into_lan",
            Self::Shield => "shield",
            Self::Egress => "egress",
            Self::Wrap => "wrap",
            Self::Forward => "forward",
        }
    }

    /// Where it runs.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Steer | Self::FromTunnel | Self::ToTunnel | Self::Wrap | Self::Forward => Hook::Ingress,
            Self::IntoTunnel | Self::IntoLan | Self::Egress => Hook::Egress,
            Self::Underlay | Self::Disco | Self::Relay | Self::Stun | Self::Shield => Hook::Xdp,
        }
    }
}

/// Position in the `NEXT` map: the programs that `underlay` jumps to. An empty place means that the stack gets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Next {
    /// [`Program::Disco`]: DISCO to the WireGuard port.
    Disco = 0,
    /// [`Program::Relay`]: Geneve to the relay port.
    Relay = 1,
    /// [`Program::Stun`]: STUN requests to the relay port or the STUN port.
    Stun = 2,
    /// [`Program::Shield`]: handshakes, STUN responses and what claims to be WireGuard on its port.
    Shield = 3,
}

impl Next {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::Disco, Self::Relay, Self::Stun, Self::Shield];

    /// The program of this place.
    pub const fn program(self) -> Program {
        match self {
            Self::Disco => Program::Disco,
            Self::Relay => Program::Relay,
            Self::Stun => Program::Stun,
            Self::Shield => Program::Shield,
        }
    }
}

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// On to the kernel's stack (and to other programs on the hook).
    Pass,
    /// To the controller's socket, untouched.
    Deliver,
    /// Out of a device again, rewritten: an answer, or on to where it goes.
    Send,
    /// Nowhere.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $label:literal, $verdict:ident;)*) => {
        /// Why. The number is stable within one pin version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])* $name = $index,)* }

        /// How many reasons there are.
        pub const REASONS: u32 = [$(Reason::$name),*].len() as u32;

        impl Reason {
            /// Every reason, in the order of its index.
            pub const ALL: [Self; REASONS as usize] = [$(Self::$name),*];

            /// Text for metrics, traces and the CLI.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What the reason does to the packet.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }
        }
    };
}

reasons! {
    /// Not a packet this program decides about. Never counted: it is nearly all of an underlay's traffic.
    NotOurs = 0, "not_ours", Pass;
    /// A DISCO message to the WireGuard port.
    Disco = 1, "disco", Deliver;
    /// A STUN binding response to the WireGuard port.
    Stun = 2, "stun", Deliver;
    /// DISCO or STUN, but no socket is bound to the controller port: the controller is down.
    NoController = 3, "no_controller", Pass;
    /// DISCO or STUN to the WireGuard port of another machine, which we only route.
    Transit = 4, "transit", Pass;
    /// DISCO or STUN, but the kernel refused to assign the controller's socket.
    NotAssigned = 5, "not_assigned", Pass;

    /// TCP of a connection that exists: not a SYN.
    TcpEstablished = 6, "tcp_established", Pass;
    /// A rule allows it.
    Rule = 7, "rule", Pass;
    /// The answer to a UDP or SCTP flow that we started.
    Reply = 8, "reply", Pass;
    /// An ICMP error or echo reply.
    IcmpReply = 9, "icmp_reply", Pass;
    /// A later fragment; the first one was judged, and without it nothing is reassembled.
    LaterFragment = 10, "later_fragment", Pass;
    /// Tailscale's own messages inside the tunnel (IP protocol 99).
    Tsmp = 11, "tsmp", Pass;
    /// No filter is loaded: nothing comes in.
    NoFilter = 12, "no_filter", Drop;
    /// Too short, or its lengths contradict each other.
    TooShort = 13, "too_short", Drop;
    /// A fragment that could overlap a transport header (RFC 1858).
    TinyFragment = 14, "fragment", Drop;
    /// A protocol number no packet may have, IPv6 hop-by-hop options, or not IP.
    UnknownProtocol = 15, "unknown_protocol", Drop;
    /// To a multicast group.
    Multicast = 16, "multicast", Drop;
    /// To a link-local address.
    LinkLocal = 17, "link_local_unicast", Drop;
    /// To an address that is neither ours nor advertised by us.
    NotLocal = 18, "not_local", Drop;
    /// No rule allows it.
    Acl = 19, "acl", Drop;

    /// A new outbound flow, remembered for its replies.
    FlowAdded = 20, "flow_added", Pass;
    /// A new outbound flow, not remembered: the peer's share of the flow table is full of live flows.
    FlowRefused = 21, "flow_refused", Pass;

    /// A peer relay's packet, on its way to the session's other end.
    Relayed = 22, "relayed", Send;
    /// To the relay's port, and for its socket: a bind, STUN, fragments, whatever is unusual.
    RelayOther = 23, "relay_other", Pass;
    /// For a session, but there is no neighbor or no route yet, or not by a device that takes frames: the socket sends it.
    RelayNoWay = 24, "relay_no_way", Pass;
    /// For a session, but longer than the way to the other end takes: the socket sends it, in fragments.
    RelayTooBig = 25, "relay_too_big", Pass;
    /// For a session, but with a checksum that only the stack can complete.
    RelayPartial = 26, "relay_partial_checksum", Pass;
    /// A VNI that is no session's.
    RelayUnknown = 27, "relay_unknown_vni", Drop;
    /// A session's VNI, from another address than its ends'.
    RelayWrongSource = 28, "relay_wrong_source", Drop;
    /// A STUN binding request, answered.
    StunAnswered = 29, "stun_answered", Send;
    /// To the STUN port, and for the server's socket: whatever is not a plain request.
    StunOther = 30, "stun_other", Pass;
    /// A source's requests over its rate.
    StunLimited = 31, "stun_limited", Drop;
    /// To the STUN port while the server is leaving.
    StunMaintenance = 32, "stun_maintenance", Drop;
    /// The frame could not be rewritten in place: no room in the driver's buffer.
    Unwritable = 33, "unwritable", Drop;

    /// A packet of an open session: it took the gateway's short way.
    Forwarded = 34, "forwarded", Send;
    /// A packet of a session that the stack forwards: translated.
    Translated = 35, "translated", Pass;
    /// A new flow through the gateway that no place is left for: the stack refuses it with ICMP.
    SessionRefused = 36, "session_refused", Pass;
    /// To be translated, but no outer port was found.
    NoPort = 37, "no_port", Drop;
    /// To be translated, but of no session: a fragment or an ICMP error of nothing we know.
    NoSession = 38, "no_session", Drop;
    /// To the outer endpoint of a peer, from somebody it has not sent to.
    NotAsked = 39, "not_asked", Drop;
    /// The kernel did not let us change the packet.
    NotRewritten = 40, "not_rewritten", Drop;

    /// Of a peer relay, to the WireGuard port: the controller takes its header off.
    ThroughRelay = 41, "through_relay", Deliver;

    /// A DISCO ping that got its pong from the kernel.
    PingAnswered = 42, "ping_answered", Send;
    /// A DISCO message that the kernel leaves to the controller.
    ForController = 43, "for_controller", Pass;
    /// DISCO from a source, or under a key, that sends too often.
    DiscoLimited = 44, "disco_limited", Drop;
    /// STUN responses from a source that sends too often.
    ResponseLimited = 45, "stun_response_limited", Drop;
    /// A handshake whose first MAC says that it knows our public key.
    Handshake = 46, "handshake", Pass;
    /// A handshake whose first MAC is wrong: made for another key, or junk.
    BadMac1 = 47, "bad_mac1", Drop;
    /// A size that a WireGuard message of this type cannot have.
    WrongSize = 48, "wrong_size", Drop;

    /// A relayed peer's packet: the relay's header was taken off.
    RelayedIn = 49, "relayed_in", Pass;
    /// To a relayed peer: on its way to get the relay's header, or out with it.
    RelayedOut = 50, "relayed_out", Send;
    /// To a relayed peer, and with the relay's header longer than the device takes.
    RelayedTooBig = 51, "relayed_too_big", Drop;
    /// To a relayed peer, but nothing is there to put the relay's header on.
    RelayedNoDevice = 52, "relayed_no_device", Drop;
    /// Of a relayed peer, but a super-packet, or with a checksum that was left to a device: on its way to be finished.
    RelayedUnfinished = 53, "relayed_unfinished", Send;
    /// A peer's packet to a port that is WireGuard's for this peer only.
    PortIn = 54, "port_in", Pass;
    /// To a peer that hears us from another port than WireGuard's.
    PortOut = 55, "port_out", Pass;
    /// On our own device between the two, and not ours.
    DetourUnknown = 56, "detour_unknown", Drop;
}

impl Reason {
    /// Position of this reason's counter of `program`.
    pub const fn counter(self, program: Program) -> u32 {
        program as u32 * REASONS + self as u32
    }
}

/// Packets and bytes, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets; a super-packet counts once.
    pub packets: u64,
    /// Bytes of those packets as the hook sees them (with an Ethernet header on Ethernet devices).
    pub bytes: u64,
}
