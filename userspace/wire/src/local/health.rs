//! What is wrong with the node, as graphical clients read it (`health/state.go`).
//!
//! The command line reads plain sentences instead: [`super::Status::health`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::go;

/// Everything that is currently unhealthy, by code; empty is healthy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthState {
    /// One entry a warning.
    #[serde(rename = "Warnings", with = "go::nil")]
    pub warnings: BTreeMap<String, UnhealthyState>,
}

/// How bad a warning is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For a settings page.
    Low,
    /// Worth an icon.
    #[default]
    Medium,
    /// Nothing works.
    High,
}

/// One warning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UnhealthyState {
    /// A stable name for it, such as `not-in-map-poll`.
    pub warnable_code: String,
    /// How bad.
    pub severity: Severity,
    /// A few words.
    pub title: String,
    /// What happened and what to do, in a sentence.
    pub text: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_since: Option<Timestamp>,
    /// Values the text was made with.
    #[serde(with = "go::nil", skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Warnings that explain this one.
    #[serde(with = "go::nil", skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Whether traffic suffers.
    pub impacts_connectivity: bool,
    /// Changes when anything above changes; opaque.
    #[serde(rename = "ETag", skip_serializing_if = "String::is_empty")]
    pub etag: String,
}
