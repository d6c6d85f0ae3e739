//! What a relay leaves to its successor in the state folder: its key, its port, its bound sessions.
//!
//! Losing the file loses the sessions: clients bind anew within seconds. Deliberately not here: the sessions' form
//! (`relay-core`).

use std::path::Path;

use relay_core::Saved;
use serde::{Deserialize, Serialize};
use types::DiscoPrivate;

use crate::store::write_atomically;

/// The file's content. No `Debug`: the key is secret.
pub(super) struct Left {
    pub(super) key: DiscoPrivate,
    pub(super) port: u16,
    pub(super) saved: Saved,
}

#[derive(Serialize, Deserialize)]
struct Text {
    key: String,
    port: u16,
    #[serde(flatten)]
    saved: Saved,
}

/// Reads it; `None` when there is none, or none that can be used.
pub(super) fn read(path: &Path) -> Option<Left> {
    let bytes = std::fs::read(path).ok()?;
    let text: Text = serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(%error, "the relay's sessions cannot be read and are lost"))
        .ok()?;
    let key = DiscoPrivate::from_text(&text.key).ok()?;
    Some(Left { key, port: text.port, saved: text.saved })
}

/// Replaces it, readable by root only.
pub(super) fn write(path: &Path, left: Left) {
    let text = Text { key: left.key.to_text(), port: left.port, saved: left.saved };
    let written = serde_json::to_vec(&text).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|bytes| write_atomically(path, &bytes)) {
        tracing::warn!(%error, "the relay's sessions cannot be stored; a restart will lose them");
    }
}

/// There is no relay any more.
pub(super) fn remove(path: &Path) {
    _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_comes_back_and_nonsense_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.json");
        assert!(read(&path).is_none());
        let key = DiscoPrivate::from_random([7; 32]);
        write(
            &path,
            Left { key: key.clone(), port: 7777, saved: Saved { lamport_id: 9, ..Saved::default() } },
        );
        let left = read(&path).unwrap();
        assert!(left.key == key && left.port == 7777 && left.saved.lamport_id == 9);
        std::fs::write(&path, b"{\"key\":").unwrap();
        assert!(read(&path).is_none());
        remove(&path);
        assert!(!path.exists());
    }
}
