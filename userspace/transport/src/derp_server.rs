//! How a DERP server is reached: from the DERP map, or from a URL.

use wire::control::DerpNode;

use crate::derp::DerpError;
use crate::tls::Expect;

/// How to reach one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For the certificate and the `Host` header.
    pub host: String,
    /// Names or addresses to dial, in order.
    pub dial: Vec<String>,
    /// The TCP port.
    pub port: u16,
    /// What its certificate must be; `None` is DERP without TLS.
    pub expect: Option<Expect>,
}

impl Server {
    /// From the DERP map.
    ///
    /// # Errors
    /// When its `CertName` is malformed or both address families are forbidden.
    pub fn from_node(node: &DerpNode) -> Result<Self, DerpError> {
        let expect =
            if node.insecure_for_tests { Expect::Anything } else { Expect::from_cert_name(&node.cert_name)? };
        let addresses = [&node.ipv4, &node.ipv6];
        let given = addresses.into_iter().filter(|ip| !ip.is_empty() && *ip != "none").cloned();
        let mut dial: Vec<_> = given.collect();
        if addresses.iter().any(|ip| ip.is_empty()) {
            dial.push(node.host_name.clone());
        }
        if dial.is_empty() {
            let why = "the DERP map forbids both IPv4 and IPv6".to_owned();
            return Err(DerpError::Server { server: node.name.clone(), why });
        }
        Ok(Self { host: node.host_name.clone(), dial, port: node.derp(), expect: Some(expect) })
    }

    /// From `https://HOST[:PORT]` or `http://HOST[:PORT]`; a path is ignored, DERP's is fixed.
    ///
    /// # Errors
    /// When it is another scheme or has no host.
    pub fn from_url(url: &str) -> Result<Self, DerpError> {
        let wrong = |why: &str| DerpError::Server { server: url.to_owned(), why: why.to_owned() };
        let uri: http::Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        let host = uri.host().ok_or_else(|| wrong("no host"))?.to_owned();
        let (port, expect) = match uri.scheme_str() {
            Some("https") => (443, Some(Expect::Host)),
            Some("http") => (80, None),
            _ => return Err(wrong("neither https:// nor http://")),
        };
        let port = uri.port_u16().unwrap_or(port);
        Ok(Self { dial: vec![host.clone()], host, port, expect })
    }

    pub(crate) fn host_header(&self) -> String {
        let default = if self.expect.is_some() { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_from_maps_and_urls() {
        let node = |ipv4: &str, ipv6: &str| DerpNode {
            host_name: "relay.example".into(),
            ipv4: ipv4.into(),
            ipv6: ipv6.into(),
            derp_port: 8443,
            ..DerpNode::default()
        };
        let dial = |ipv4, ipv6| Server::from_node(&node(ipv4, ipv6)).map(|server| server.dial.join(" "));
        assert_eq!(dial("192.0.2.1", "none").unwrap(), "192.0.2.1");
        assert_eq!(dial("192.0.2.1", "").unwrap(), "192.0.2.1 relay.example");
        assert_eq!(dial("", "").unwrap(), "relay.example");
        assert!(dial("none", "none").is_err());
        let server = Server::from_url("http://192.0.2.1:8080/derp").unwrap();
        assert_eq!(
            (server.port, server.expect.clone(), server.host_header()),
            (8080, None, "192.0.2.1:8080".into())
        );
        assert_eq!(Server::from_url("https://relay.example").unwrap().host_header(), "relay.example");
        assert!(Server::from_url("relay.example").is_err());
    }
}
