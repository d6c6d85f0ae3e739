//! What the server is started with: flags, and a file with the same names.
//!
//! [`Options`] is what a person wrote, everything optional; [`Config`] is complete and checked. A flag wins over the
//! file. The file is HuJSON (JSON with comments and trailing commas).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use relay::{StunOptions, Xdp};
use serde::Deserialize;

/// The STUN port every client expects (RFC 8489 section 18.6).
const STUN_PORT: u16 = 3478;

/// Where the admin socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/underpass/server.sock";

/// What the server's start can find wrong in flags or file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the config file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is not HuJSON, or has a name this server does not know.
    #[error("config file {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        reason: String,
    },
    /// A flag that has no default is missing.
    #[error("--{0} is missing; give the flag, or {0:?} in the config file")]
    Missing(&'static str),
    /// The URL is not one that nodes can be given.
    #[error("--url {url:?}: {reason}; give it as https://HOST[:PORT]")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No relay is left.
    #[error("--embedded-relay=false leaves nodes without a relay: give others with --derp-map FILE|URL")]
    NoRelay,
    /// The TLS mode is none of the three.
    #[error("--tls {0:?}: give self-signed, off, or CERT,KEY (two PEM files)")]
    Tls(String),
    /// XDP is asked for in a way there is not.
    #[error("--xdp {0}")]
    Xdp(String),
}

/// What the command line and the config file may say. Names are the flags' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Folder of the state.
    pub state: Option<PathBuf>,
    /// What nodes pass to `--login-server`.
    pub url: Option<String>,
    /// Where to accept connections; by default every address, on the URL's port.
    pub listen: Option<SocketAddr>,
    /// Where to answer STUN; by default every address, port 3478.
    pub stun: Option<SocketAddr>,
    /// Whether STUN is answered ahead of the stack too: `auto`, `on` or `off`.
    pub xdp: Option<String>,
    /// Whether STUN requests are dropped: the server is leaving.
    pub drop_stun: Option<bool>,
    /// `self-signed`, `off` or `CERT,KEY`.
    pub tls: Option<String>,
    /// The policy file; without one everything is allowed.
    pub policy: Option<PathBuf>,
    /// More relays: files or URLs of DERP maps.
    #[serde(rename = "derp-map")]
    pub derp_map: Option<Vec<String>>,
    /// Whether this server is a relay itself, which is the default.
    #[serde(rename = "embedded-relay")]
    pub embedded_relay: Option<bool>,
    /// The admin socket.
    pub socket: Option<PathBuf>,
}

impl Options {
    /// Reads a config file.
    ///
    /// # Errors
    /// When it cannot be read, is not HuJSON or has an unknown name.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let value = jsonc_parser::parse_to_serde_value::<Self>(&text, &jsonc_parser::ParseOptions::default())
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })?;
        Ok(value)
    }

    /// These options, and `file`'s where these say nothing.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            state: self.state.or(file.state),
            url: self.url.or(file.url),
            listen: self.listen.or(file.listen),
            stun: self.stun.or(file.stun),
            xdp: self.xdp.or(file.xdp),
            drop_stun: self.drop_stun.or(file.drop_stun),
            tls: self.tls.or(file.tls),
            policy: self.policy.or(file.policy),
            derp_map: self.derp_map.or(file.derp_map),
            embedded_relay: self.embedded_relay.or(file.embedded_relay),
            socket: self.socket.or(file.socket),
        }
    }
}

/// How connections are secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// By a certificate made at the first start and kept in the state folder; clients pin it.
    SelfSigned,
    /// Not at all: a proxy in front does it, or the network is a test.
    Off,
    /// By a certificate chain and key in two PEM files.
    Files {
        /// The certificate chain, leaf first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

impl FromStr for Tls {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(',') {
            None if text == "self-signed" => Ok(Self::SelfSigned),
            None if text == "off" => Ok(Self::Off),
            Some((cert, key)) if !cert.is_empty() && !key.is_empty() => {
                Ok(Self::Files { cert: cert.into(), key: key.into() })
            }
            _ => Err(ConfigError::Tls(text.to_owned())),
        }
    }
}

/// The URL nodes use, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Whether it begins with `https:`.
    pub secure: bool,
    /// Host name or address, an IPv6 address without its brackets.
    pub host: String,
    /// The port, written or implied.
    pub port: u16,
}

impl ServerUrl {
    /// The host as an address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// As nodes write it, without a port where the scheme implies it.
    pub fn text(&self) -> String {
        let (scheme, default) = if self.secure { ("https", 443) } else { ("http", 80) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{}", self.port)
        }
    }
}

impl FromStr for ServerUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason| ConfigError::Url { url: text.to_owned(), reason };
        let uri: http::Uri = text.parse().map_err(|_| wrong("not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("not an http or https URL")),
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("nothing may follow host and port"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host, port })
    }
}

/// Everything the server needs to know to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the state; made when absent.
    pub state: PathBuf,
    /// What nodes pass to `--login-server`.
    pub url: ServerUrl,
    /// Where to accept connections.
    pub listen: SocketAddr,
    /// Where to answer STUN.
    pub stun: SocketAddr,
    /// How to answer it.
    pub stun_options: StunOptions,
    /// How connections are secured.
    pub tls: Tls,
    /// The policy file; without one everything is allowed.
    pub policy: Option<PathBuf>,
    /// More relays: files or URLs of DERP maps.
    pub derp_map: Vec<String>,
    /// Whether nodes are given this server as a relay.
    pub embedded_relay: bool,
    /// The admin socket.
    pub socket: PathBuf,
}

impl TryFrom<Options> for Config {
    type Error = ConfigError;

    /// Fills in the defaults: TLS is self-signed for an https URL and off for an http one.
    fn try_from(options: Options) -> Result<Self, ConfigError> {
        let url: ServerUrl = options.url.ok_or(ConfigError::Missing("url"))?.parse()?;
        let tls = match options.tls {
            Some(text) => text.parse()?,
            None if url.secure => Tls::SelfSigned,
            None => Tls::Off,
        };
        if options.embedded_relay == Some(false) && options.derp_map.as_ref().is_none_or(Vec::is_empty) {
            return Err(ConfigError::NoRelay);
        }
        let xdp = options.xdp.map_or(Ok(Xdp::default()), |text| text.parse().map_err(ConfigError::Xdp))?;
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        Ok(Self {
            state: options.state.ok_or(ConfigError::Missing("state"))?,
            listen: options.listen.unwrap_or_else(|| any(url.port)),
            stun: options.stun.unwrap_or_else(|| any(STUN_PORT)),
            stun_options: StunOptions { xdp, dropping: options.drop_stun.unwrap_or(false) },
            tls,
            policy: options.policy,
            derp_map: options.derp_map.unwrap_or_default(),
            embedded_relay: options.embedded_relay.unwrap_or(true),
            socket: options.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Options {
        Options { url: Some(url.into()), state: Some("/s".into()), ..Options::default() }
    }

    #[test]
    fn defaults_follow_the_url() {
        let config = Config::try_from(options("https://203.0.113.10")).unwrap();
        assert_eq!((config.tls, config.listen.port(), config.stun.port()), (Tls::SelfSigned, 443, 3478));
        assert_eq!(config.url.text(), "https://203.0.113.10");
        let config = Config::try_from(options("http://[2001:db8::1]:8080/")).unwrap();
        assert_eq!((config.tls, config.listen.port()), (Tls::Off, 8080));
        assert_eq!(config.url.text(), "http://[2001:db8::1]:8080");
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = Options { url: Some("https://b".into()), tls: Some("off".into()), ..Options::default() };
        let config = Config::try_from(options("https://a").over(file)).unwrap();
        assert_eq!((config.url.host.as_str(), config.tls), ("a", Tls::Off));
    }

    #[test]
    fn wrong_values_name_the_flag() {
        let missing = Config::try_from(Options::default()).unwrap_err().to_string();
        assert!(missing.starts_with("--url is missing"), "{missing}");
        for url in ["203.0.113.10", "ftp://host", "https://host/path", "https://"] {
            assert!(Config::try_from(options(url)).unwrap_err().to_string().starts_with("--url"), "{url}");
        }
        let tls = Options { tls: Some("cert.pem".into()), ..options("https://a") };
        assert!(Config::try_from(tls).unwrap_err().to_string().contains("CERT,KEY"));
    }

    #[test]
    fn a_file_with_an_unknown_name_is_refused_with_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.hujson");
        std::fs::write(&path, "{\n  // where we are\n  \"url\": \"https://a\",\n}").unwrap();
        assert_eq!(Options::read(&path).unwrap().url.as_deref(), Some("https://a"));
        std::fs::write(&path, "{ \"urls\": \"https://a\" }").unwrap();
        assert!(Options::read(&path).unwrap_err().to_string().contains("urls"));
    }
}
