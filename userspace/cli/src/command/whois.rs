//! `underpass whois`: whose machine has an address.

use clap::Args;
use wire::local::WhoIsResponse;

use crate::client::{Client, ClientError};
use crate::{output, table};

/// `underpass whois`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct WhoIs {
    /// Overlay address, with or without a port, or a node key.
    addr: String,
    #[command(flatten)]
    output: output::Json,
}

impl WhoIs {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let path = format!("whois?addr={}", query_value(&self.addr));
        let found = node.get::<WhoIsResponse>(&path).await.map_err(|error| match error {
            ClientError::Refused { status: 404, .. } => {
                anyhow::anyhow!("no node of the network has {}", self.addr)
            }
            other => other.into(),
        })?;
        self.output.print(&found, human)
    }
}

/// Percent-encodes whatever is not plain, so that an argument stays one value.
pub(super) fn query_value(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn human(found: &WhoIsResponse) -> String {
    let node = &found.node;
    let list = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut rows = vec![
        ["Machine:".into(), String::new()],
        ["  Name:".into(), node.name.trim_end_matches('.').to_owned()],
        ["  ID:".into(), node.stable_id.to_string()],
        ["  Addresses:".into(), list(&node.addresses)],
    ];
    let routes = node.allowed_ips.iter().flatten().filter(|net| !node.addresses.contains(net));
    let routes: Vec<_> = routes.copied().collect();
    if !routes.is_empty() {
        rows.push(["  Routes:".into(), list(&routes)]);
    }
    if node.tags.is_empty() {
        rows.push(["User:".into(), String::new()]);
        rows.push(["  Name:".into(), found.user_profile.login_name.clone()]);
        rows.push(["  ID:".into(), found.user_profile.id.to_string()]);
    } else {
        rows.push(["  Tags:".into(), node.tags.join(", ")]);
    }
    table::align(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_cannot_add_parameters() {
        assert_eq!(query_value("100.64.0.1:22"), "100.64.0.1%3A22");
        assert_eq!(query_value("a&proto=udp#"), "a%26proto%3Dudp%23");
    }

    #[test]
    fn tagged_nodes_show_tags_instead_of_a_user() {
        let mut found = WhoIsResponse::default();
        found.node.name = "gw.net.test.".into();
        found.user_profile.login_name = "alice@".into();
        assert!(human(&found).contains("Name:       alice@\n"), "{}", human(&found));
        found.node.tags = vec!["tag:gw".into()];
        assert!(human(&found).contains("Tags:       tag:gw\n") && !human(&found).contains("alice"));
    }
}
