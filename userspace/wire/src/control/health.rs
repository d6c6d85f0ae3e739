//! Health, both ways: the server's messages for the user, the node's reports.

use serde::{Deserialize, Serialize};
use types::NodePublic;

use super::message::message;

message! {
    /// A message of the server for the user (`tailcfg.DisplayMessage`).
    pub struct DisplayMessage {
        /// One line.
        pub title: String = "Title",
        /// What is wrong and what to do.
        pub text: String = "Text",
        /// How bad.
        pub severity: Severity = "Severity",
        /// Connectivity suffers.
        pub impacts_connectivity: bool = "ImpactsConnectivity" omitempty,
        /// A link to follow.
        pub primary_action: Option<DisplayMessageAction> = "PrimaryAction" omitempty,
    }

    /// A link beside a message.
    pub struct DisplayMessageAction {
        /// Where.
        pub url: String = "URL",
        /// What it says.
        pub label: String = "Label",
    }

    /// `POST /machine/update-health` (`tailcfg.HealthChangeRequest`).
    pub struct HealthChangeRequest {
        /// What changed.
        pub subsys: String = "Subsys",
        /// Its trouble; empty is well again.
        pub error: String = "Error",
        /// Whose.
        pub node_key: NodePublic = "NodeKey",
    }
}

/// `high`, `medium`, `low`, or one not yet known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Severity(pub String);

impl Severity {
    /// The node needs attention.
    pub const HIGH: &str = "high";
    /// Something is amiss.
    pub const MEDIUM: &str = "medium";
    /// For information.
    pub const LOW: &str = "low";
}
