//! The server's URL and how it is dialed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// An `http` or `https` URL of a control server, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    tls: bool,
    host: String,
    port: Option<u16>,
}

/// Why a text is not a server's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a control server's URL: {why}; it looks like https://control.example or http://10.0.0.1:8080"
)]
pub struct UrlError {
    text: String,
    why: String,
}

/// One way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) tls: bool,
    pub(super) port: u16,
}

impl ServerUrl {
    /// The name or address to dial, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What stands in an HTTP `Host` header.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// The ways to try, in order. The scheme decides; plain HTTP to a public host falls back to TLS, because proxies on
    /// port 80 like to swallow upgrades (tailscale `control/ts2021/client.go`).
    pub(super) fn routes(&self) -> Vec<Route> {
        if self.tls {
            return vec![Route { tls: true, port: self.port.unwrap_or(443) }];
        }
        let plain = Route { tls: false, port: self.port.unwrap_or(80) };
        if self.is_private() { vec![plain] } else { vec![plain, Route { tls: true, port: 443 }] }
    }

    /// No certificate can be had for such a host.
    fn is_private(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(addr)) => addr.is_private() || addr.is_loopback(),
            Ok(IpAddr::V6(addr)) => addr.is_unique_local() || addr.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = |why: &str| UrlError { text: text.to_owned(), why: why.to_owned() };
        let uri: Uri =
            text.trim().parse().map_err(|e: hyper::http::uri::InvalidUri| error(&e.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(error("the scheme is neither http nor https")),
            None => return Err(error("the scheme is missing")),
        };
        if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
            return Err(error("it has a path"));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        Ok(Self { tls, host: host.to_owned(), port: uri.port_u16() })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Vec<(bool, u16)> {
        text.parse::<ServerUrl>().unwrap().routes().iter().map(|route| (route.tls, route.port)).collect()
    }

    #[test]
    fn the_scheme_decides_and_public_http_falls_back() {
        assert_eq!(routes("https://control.example"), [(true, 443)]);
        assert_eq!(routes("https://control.example:8443/"), [(true, 8443)]);
        assert_eq!(routes("http://control.example"), [(false, 80), (true, 443)]);
        assert_eq!(routes("http://control.example:8080"), [(false, 8080), (true, 443)]);
        assert_eq!(routes("http://10.0.0.1:8080"), [(false, 8080)]);
        assert_eq!(routes("http://[fd00::1]"), [(false, 80)]);
        assert_eq!(routes("http://localhost"), [(false, 80)]);
    }

    #[test]
    fn text_forms() {
        for text in ["https://control.example", "http://[fd00::1]:8080", "http://192.0.2.1"] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), text);
        }
        assert_eq!("http://[fd00::1]".parse::<ServerUrl>().unwrap().host(), "fd00::1");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("control.example", "scheme is missing"),
            ("ftp://control.example", "neither http nor https"),
            ("https://control.example/admin", "has a path"),
            ("", "empty"),
        ] {
            let error = text.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("https://control.example"), "{error}");
        }
    }
}
