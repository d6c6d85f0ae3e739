//! `underpass metrics`: counters, for people and for Prometheus' textfile collector.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::client::Client;
use crate::output;

/// `underpass metrics`
#[derive(Args)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct Metrics {
    /// Write to a file instead, whole or not at all.
    #[arg(long, value_name = "PATH", conflicts_with = "json")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: output::Json,
}

impl Metrics {
    pub(crate) async fn run(self, node: &Client) -> anyhow::Result<()> {
        let text = node.get_text("usermetrics").await?;
        match self.write {
            None if self.output.json => output::json(&samples(&text)),
            None => output::text(&text),
            Some(path) => {
                let draft = path.with_extension("tmp");
                std::fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
                std::fs::rename(&draft, &path).with_context(|| format!("cannot replace {}", path.display()))
            }
        }
    }
}

/// Every sample by its name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_named_with_their_labels() {
        let text = "# TYPE drops counter\ndrops{reason=\"no rule\"} 3\nup 1\n\n";
        assert_eq!(samples(text), [("drops{reason=\"no rule\"}", 3.0), ("up", 1.0)].into());
    }
}
