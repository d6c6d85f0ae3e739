//! The store: the folder of the state file, which is never replaced silently, and of the cached netmap, which may be lost.
//!
//! The state is written atomically: a temporary file (0600), synced, renamed, the folder synced, the former generation kept
//! as `.previous`. Where the current file is torn the previous one is used, with a warning; two torn ones, or one of a newer
//! version, are an error: keys are never regenerated silently. Deliberately not here: the files' text (`state`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use wire::control::MapResponse;

use crate::Error;
use crate::state::{Broken, State, VERSION};

const STATE_FILE: &str = "underpass.state";
const PREVIOUS_FILE: &str = "underpass.state.previous";
const NETMAP_FILE: &str = "netmap.json";
const RELAY_FILE: &str = "relay.json";
const LOCK_FILE: &str = "lock";

/// The folder both files live in, ours alone.
pub(crate) struct Store {
    folder: PathBuf,
    /// Held as long as we live; the kernel lets go of it however we end.
    _lock: Flock<File>,
}

/// A state that was read, and what is wrong with how it was found.
pub(crate) struct Loaded {
    /// The state; `None` when there never was one.
    pub(crate) state: Option<State>,
    /// For the health list: the current file was torn and the previous one is in use.
    pub(crate) warning: Option<String>,
}

impl Store {
    /// Opens the folder, making it (0700) where it is missing.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be made; [`Error::InUse`] when another node has it.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Error::State {
            path: folder.to_owned(),
            detail: format!("cannot make the folder: {error}; choose another with --state"),
        })?;
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOCK_FILE));
        let lock = lock.map_err(|error| Error::State {
            path: folder.join(LOCK_FILE),
            detail: format!("cannot be made: {error}; choose another folder with --state"),
        })?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| Error::InUse {
            what: format!("state folder {}", folder.display()),
            detail: "another node runs with it".into(),
            flag: "--state",
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Reads the state, falling back to the previous generation.
    ///
    /// # Errors
    /// [`Error::State`] when there are files, but none can be used.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let current = self.read(STATE_FILE)?;
        if let Found::Good(state) = current {
            return Ok(Loaded { state: Some(*state), warning: None });
        }
        match (current, self.read(PREVIOUS_FILE)?) {
            (Found::Nothing, Found::Nothing) => Ok(Loaded { state: None, warning: None }),
            (found, Found::Good(state)) => {
                let detail = found.trouble();
                let path = self.folder.join(STATE_FILE);
                let warning = format!("{} is {detail}; the previous generation is in use", path.display());
                Ok(Loaded { state: Some(*state), warning: Some(warning) })
            }
            (current, previous) => Err(self.error(format!(
                "it is {}, and the previous generation is {}; restore one from a backup, or remove both to start as a new \
                 machine",
                current.trouble(),
                previous.trouble(),
            ))),
        }
    }

    /// Replaces the state, unless it is what is stored; returns when it is safe on the disk.
    ///
    /// # Errors
    /// [`Error::State`]; what was stored before stays.
    pub(crate) fn save(&self, state: &State) -> Result<(), Error> {
        let envelope = state.to_text().map_err(|error| self.error(error.to_string()))?;
        if fs::read(self.folder.join(STATE_FILE)).is_ok_and(|stored| stored == envelope) {
            return Ok(());
        }
        self.replace(&envelope)
            .map_err(|error| self.error(format!("cannot be written: {error}; is the disk full?")))
    }

    /// The netmap of the last run, if it can be read. Losing it costs a second at the next start, nothing else.
    pub(crate) fn load_netmap(&self) -> Option<MapResponse> {
        let bytes = fs::read(self.folder.join(NETMAP_FILE)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(%error, "the cached netmap cannot be read and is not used"))
            .ok()
    }

    /// Where the netmap is cached, for a writer in the background.
    pub(crate) fn netmap_file(&self) -> PathBuf {
        self.folder.join(NETMAP_FILE)
    }

    /// Where a peer relay leaves its sessions.
    pub(crate) fn relay_file(&self) -> PathBuf {
        self.folder.join(RELAY_FILE)
    }

    /// Forgets the cached netmap.
    pub(crate) fn remove_netmap(&self) {
        _ = fs::remove_file(self.netmap_file());
    }

    fn error(&self, detail: String) -> Error {
        Error::State { path: self.folder.join(STATE_FILE), detail }
    }

    fn read(&self, name: &str) -> Result<Found, Error> {
        let bytes = match fs::read(self.folder.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.error(format!("cannot be read: {error}"))),
        };
        match State::from_text(&bytes) {
            Ok(state) => Ok(Found::Good(Box::new(state))),
            Err(Broken::Newer(version)) => Err(self.error(format!(
                "it was written by a newer version of Underpass (format {version}, this one knows {VERSION}); \
                 install that version again, or remove the file to start as a new machine"
            ))),
            Err(Broken::Torn(detail)) => Ok(Found::Torn(detail)),
        }
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let current = self.folder.join(STATE_FILE);
        let link = self.folder.join("underpass.state.link");
        let temporary = write_beside(&current, bytes)?;
        _ = fs::remove_file(&link);
        // A second name first, so that at no moment there is neither a current nor a previous file.
        if fs::hard_link(&current, &link).is_ok() {
            fs::rename(&link, self.folder.join(PREVIOUS_FILE))?;
        }
        fs::rename(temporary, current)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Writes `bytes` to `path` atomically, readable by root only.
///
/// # Errors
/// When the disk refuses; the former file stays.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::rename(write_beside(path, bytes)?, path)
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = path.with_extension("new");
    _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

enum Found {
    Nothing,
    Good(Box<State>),
    Torn(String),
}

impl Found {
    fn trouble(&self) -> String {
        match self {
            Self::Nothing => "missing".into(),
            Self::Good(_) => "good".into(),
            Self::Torn(detail) => format!("torn ({detail})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state(seed: u8) -> State {
        State { port: Some(41641), ..State::fresh(|| [seed; 32]) }
    }

    fn saved(states: &[u8]) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        for seed in states {
            store.save(&state(*seed)).unwrap();
        }
        (folder, store)
    }

    fn loaded_seed(store: &Store) -> (State, Option<String>) {
        let Loaded { state, warning } = store.load().unwrap_or_else(|error| panic!("{error}"));
        (state.expect("a state"), warning)
    }

    fn tear(store: &Store, name: &str) {
        let path = store.folder.join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }

    #[test]
    fn what_was_saved_comes_back_and_the_file_is_private() {
        let (_folder, store) = saved(&[1, 2]);
        let (back, warning) = loaded_seed(&store);
        assert!(back.machine_key == state(2).machine_key && back.node_key == state(2).node_key);
        assert_eq!((back.port, warning), (Some(41641), None));
        for name in [STATE_FILE, PREVIOUS_FILE] {
            assert_eq!(fs::metadata(store.folder.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&store.folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_torn_file_falls_back_to_the_previous_generation_with_a_warning() {
        let (_folder, store) = saved(&[1, 2]);
        tear(&store, STATE_FILE);
        let (back, warning) = loaded_seed(&store);
        assert!(back.machine_key == state(1).machine_key);
        assert!(warning.unwrap().contains("torn"));
    }

    #[test]
    fn a_changed_byte_inside_is_noticed() {
        let (_folder, store) = saved(&[1, 2]);
        let path = store.folder.join(STATE_FILE);
        let text = fs::read_to_string(&path).unwrap().replace("41641", "41642");
        fs::write(&path, text).unwrap();
        assert!(loaded_seed(&store).1.unwrap().contains("checksum"));
    }

    #[test]
    fn two_torn_files_are_an_error_and_never_a_new_machine() {
        let (_folder, store) = saved(&[1, 2]);
        tear(&store, STATE_FILE);
        tear(&store, PREVIOUS_FILE);
        let error = store.load().err().unwrap();
        assert!(matches!(error, Error::State { .. }));
        assert!(error.to_string().contains("remove both"), "{error}");
    }

    #[test]
    fn a_lone_torn_file_is_an_error_too() {
        let (_folder, store) = saved(&[1]);
        tear(&store, STATE_FILE);
        assert!(store.load().is_err());
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_even_with_a_good_previous_one() {
        let (_folder, store) = saved(&[1, 2]);
        fs::write(store.folder.join(STATE_FILE), r#"{"version":2,"other":"things"}"#).unwrap();
        assert!(store.load().err().unwrap().to_string().contains("newer version"));
    }

    #[test]
    fn two_nodes_never_share_a_folder() {
        let (_folder, store) = saved(&[]);
        assert_eq!(Store::open(&store.folder).err().unwrap().exit_code(), 6);
        let folder = store.folder.clone();
        drop(store);
        assert!(Store::open(&folder).is_ok());
    }

    #[test]
    fn an_empty_folder_is_a_new_machine() {
        let (_folder, store) = saved(&[]);
        let Loaded { state, warning } = store.load().unwrap_or_else(|error| panic!("{error}"));
        assert!(state.is_none() && warning.is_none());
        assert!(store.load_netmap().is_none());
    }
}
