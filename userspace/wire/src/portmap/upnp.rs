//! UPnP's Internet gateway device: SSDP to find it, its description, and the SOAP calls that map a port (UPnP Forum,
//! `WANIPConnection:1` and `:2`).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use roxmltree::{Document, Node};

use super::Error;

/// Where a search goes, beside the router itself.
pub const MULTICAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// The router's port of SSDP.
pub const PORT: u16 = 1900;
/// The kinds of service that map ports; the first found of a router is used.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// "Only permanent leases are supported".
const ONLY_PERMANENT: &str = "725";

/// The search for gateway devices, of either version.
pub fn search(version: u8) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\
         ST: urn:schemas-upnp-org:device:InternetGatewayDevice:{version}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n"
    )
}

/// Where the description of the gateway that gave this answer to [`search`] is.
pub fn location(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    if !lines.next()?.contains(" 200 ") || !text.contains("InternetGatewayDevice") {
        return None;
    }
    let named = lines.filter_map(|line| line.split_once(':'));
    let mut found = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("location"));
    found.next().map(|(_, value)| value.trim().to_owned())
}

/// A service that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its type, which SOAP calls repeat.
    pub kind: &'static str,
    /// Path of its SOAP calls, beginning with `/`.
    pub path: String,
}

/// The service that maps ports, out of a gateway's description.
///
/// # Errors
/// When it is no XML or there is no such service.
pub fn service(description: &str) -> Result<Service, Error> {
    let document = Document::parse(description).map_err(|_| Error::Foreign)?;
    let services = || document.descendants().filter(|node| node.tag_name().name() == "service");
    let of_kind = |kind: &'static str| {
        let service = services().find(|service| child(*service, "serviceType") == Some(kind))?;
        let url = child(service, "controlURL")?;
        // Routers write a path, or a whole URL of themselves.
        let path =
            url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        Some(Service { kind, path: format!("/{}", path.trim_start_matches('/')) })
    };
    SERVICES.into_iter().find_map(of_kind).ok_or(Error::Foreign)
}

/// A SOAP call: the `SOAPAction` header's value and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Value of the header.
    pub action: String,
    /// XML.
    pub body: String,
}

impl Service {
    /// Asks for the router's public address.
    pub fn external_address(&self) -> Call {
        self.call("GetExternalIPAddress", &[])
    }

    /// Asks that UDP `external` at the router lead to `internal`; a lifetime of 0 s is for ever.
    pub fn add(&self, external: u16, internal: SocketAddrV4, lifetime: Duration) -> Call {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "UDP".into()),
            ("NewInternalPort", internal.port().to_string()),
            ("NewInternalClient", internal.ip().to_string()),
            ("NewEnabled", "1".into()),
            ("NewPortMappingDescription", "underpass".into()),
            ("NewLeaseDuration", lifetime.as_secs().to_string()),
        ];
        self.call("AddPortMapping", &arguments)
    }

    /// Takes a mapping back.
    pub fn delete(&self, external: u16) -> Call {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "UDP".into()),
        ];
        self.call("DeletePortMapping", &arguments)
    }

    fn call(&self, name: &str, arguments: &[(&str, String)]) -> Call {
        let arguments: String =
            arguments.iter().map(|(tag, text)| format!("<{tag}>{text}</{tag}>")).collect();
        let kind = self.kind;
        Call {
            action: format!("\"{kind}#{name}\""),
            body: format!(
                "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                 s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
                 <u:{name} xmlns:u=\"{kind}\">{arguments}</u:{name}></s:Body></s:Envelope>\r\n"
            ),
        }
    }
}

/// The router's public address out of its answer.
///
/// # Errors
/// When it is none.
pub fn read_address(answer: &str) -> Result<Ipv4Addr, Error> {
    let document = Document::parse(answer).map_err(|_| Error::Foreign)?;
    let root = document.root_element();
    let text = root.descendants().find(|node| node.tag_name().name() == "NewExternalIPAddress");
    text.and_then(|node| node.text()).and_then(|text| text.trim().parse().ok()).ok_or(Error::Foreign)
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The router's words.
    pub text: String,
    /// It only knows mappings that last until they are taken back.
    pub only_permanent: bool,
}

/// The fault in the answer to a failed call.
pub fn fault(answer: &str) -> Fault {
    let document = Document::parse(answer).ok();
    let text = |tag: &str| {
        let found =
            document.iter().flat_map(Document::descendants).find(|node| node.tag_name().name() == tag);
        found.and_then(|node| node.text()).unwrap_or_default().trim().to_owned()
    };
    let code = text("errorCode");
    Fault { only_permanent: code == ONLY_PERMANENT, text: format!("{code} {}", text("errorDescription")) }
}

fn child<'a>(node: Node<'a, 'a>, tag: &str) -> Option<&'a str> {
    node.children().find(|child| child.tag_name().name() == tag)?.text().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
        <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
        <controlURL>/no</controlURL></service></serviceList><deviceList><device><serviceList><service>
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
        <controlURL>HERE</controlURL></service></serviceList></device></deviceList></device></root>"#;

    #[test]
    fn a_gateway_is_found_by_its_answer_and_its_service_by_its_description() {
        let answer = b"HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
            Location:  http://192.168.1.1:5000/root.xml\r\n\r\n";
        assert_eq!(location(answer).unwrap(), "http://192.168.1.1:5000/root.xml");
        assert_eq!(location(b"HTTP/1.1 200 OK\r\nST: printer\r\nLocation: http://x/\r\n\r\n"), None);
        assert_eq!(location(b"\xff"), None);
        for (url, path) in [("/ctl/IPConn", "/ctl/IPConn"), ("http://192.168.1.1:5000/c", "/c"), ("c", "/c")]
        {
            assert_eq!(service(&DESCRIPTION.replace("HERE", url)).unwrap().path, path);
        }
        assert_eq!(service("<root/>"), Err(Error::Foreign));
        assert_eq!(service("no XML"), Err(Error::Foreign));
    }

    #[test]
    fn calls_name_their_service_and_faults_are_read() {
        let service = service(&DESCRIPTION.replace("HERE", "/c")).unwrap();
        let call = service.add(4096, "192.168.1.2:41641".parse().unwrap(), Duration::from_secs(7200));
        assert_eq!(call.action, "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"");
        assert!(call.body.contains("<NewInternalClient>192.168.1.2</NewInternalClient>"), "{}", call.body);
        assert!(Document::parse(&call.body).is_ok());
        let address = "<e><b><NewExternalIPAddress>203.0.113.1</NewExternalIPAddress></b></e>";
        assert_eq!(read_address(address), Ok([203, 0, 113, 1].into()));
        assert!(read_address("<e/>").is_err());
        let no = fault("<e><errorCode>725</errorCode><errorDescription>Only</errorDescription></e>");
        assert_eq!(no, Fault { text: "725 Only".into(), only_permanent: true });
        assert!(!fault("").only_permanent);
    }
}
