//! The regions nodes are given: the relay inside this server, and those of DERP maps in files or behind URLs.
//!
//! A map that cannot be read at the start is an error; later the last good one stays. Regions of a later source take the
//! place of an earlier one's with the same number. Deliberately not here: the embedded region itself (`server`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use jsonc_parser::{ParseOptions, parse_to_serde_value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use transport::fetch;
use transport::tls::Trust;
use wire::control::DerpMap;

use crate::coordinator::{Handle, Input};

/// Between two looks at the sources.
const REFRESH: Duration = Duration::from_secs(3600);
/// For one URL.
const DEADLINE: Duration = Duration::from_secs(30);
/// A map of Tailscale's size is 40 KiB.
const MAX_MAP: usize = 4 << 20;

/// The embedded region and where the others are from.
pub(crate) struct Regions {
    pub(crate) embedded: DerpMap,
    pub(crate) sources: Vec<String>,
    pub(crate) trust: Trust,
}

impl Regions {
    /// All regions.
    ///
    /// # Errors
    /// When a source cannot be read, or no region is left.
    pub(crate) async fn read(&self) -> anyhow::Result<DerpMap> {
        let mut all = self.embedded.clone();
        for source in &self.sources {
            let map = self.one(source).await.with_context(|| format!("DERP map {source} (--derp-map)"))?;
            all.regions.extend(map.regions);
        }
        if all.present().next().is_none() {
            bail!("no relay region is left: the DERP maps are empty");
        }
        Ok(all)
    }

    async fn one(&self, source: &str) -> anyhow::Result<DerpMap> {
        let bytes = if source.contains("://") {
            timeout(DEADLINE, fetch::get(source, &self.trust, MAX_MAP)).await.context("no answer")??.to_vec()
        } else {
            tokio::fs::read(Path::new(source)).await?
        };
        let text = std::str::from_utf8(&bytes).context("it is no text")?;
        // By way of a value: numbers are keys here, which only JSON's own reader takes for numbers.
        let value: serde_json::Value = parse_to_serde_value(text, &ParseOptions::default())?;
        let map: DerpMap = serde_json::from_value(value)?;
        for (id, region) in map.present() {
            if id.is_zero() || region.region_id != id {
                bail!("region {id}: RegionID is {}", region.region_id);
            }
            if region.nodes.is_empty() {
                bail!("region {id} has no nodes");
            }
        }
        Ok(map)
    }

    /// Reads the sources again every hour and on SIGHUP, and tells what is new.
    pub(crate) async fn follow(self, coordinator: Handle) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                return tracing::error!(%error, "SIGHUP cannot be received: relays are not read again");
            }
        };
        loop {
            // Either way: look again.
            _ = timeout(REFRESH, hangup.recv()).await;
            match self.read().await {
                Ok(map) => coordinator.tell(Input::DerpMap(Box::new(map))).await,
                Err(error) => tracing::error!("the relays in force are kept: {error:#}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use types::RegionId;
    use wire::control::DerpRegion;

    use super::*;

    fn regions(sources: &[&Path]) -> Regions {
        let region =
            DerpRegion { region_id: RegionId(900), region_code: "own".into(), ..DerpRegion::default() };
        Regions {
            embedded: DerpMap { regions: [(RegionId(900), Some(region))].into(), ..DerpMap::default() },
            sources: sources.iter().map(|path| path.display().to_string()).collect(),
            trust: Trust::system(None).unwrap(),
        }
    }

    #[tokio::test]
    async fn sources_add_regions_and_later_ones_win() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.json"), folder.path().join("two.json"));
        let map = |id: i32, code: &str| {
            format!(
                r#"{{"Regions": {{ // ours
                "{id}": {{"RegionID": {id}, "RegionCode": "{code}", "Nodes": [{{"Name": "n", "HostName": "h"}}],}}}}}}"#
            )
        };
        std::fs::write(&one, map(901, "one")).unwrap();
        std::fs::write(&two, map(901, "two")).unwrap();
        let all = regions(&[&one, &two]).read().await.unwrap();
        let codes: Vec<_> = all.present().map(|(_, region)| region.region_code.clone()).collect();
        assert_eq!(codes, ["own", "two"]);
        for wrong in ["{", r#"{"Regions":{"7":{"RegionID":8}}}"#, r#"{"Regions":{"7":{"RegionID":7}}}"#] {
            std::fs::write(&two, wrong).unwrap();
            let error = regions(&[&one, &two]).read().await.unwrap_err();
            assert!(format!("{error:#}").contains("two.json"), "{error:#}");
        }
        let none = Regions { embedded: DerpMap::default(), ..regions(&[]) };
        assert!(none.read().await.is_err());
    }
}
