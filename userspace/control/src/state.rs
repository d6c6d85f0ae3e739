//! The state folder: who may use it, and the server's Noise key, which is kept apart from the database so that a copy of
//! the one is not the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use types::MachinePrivate;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(
        "cannot use the state folder {path}: {source}; give one that this user can write to with --state"
    )]
    Folder { path: PathBuf, source: io::Error },
    #[error("another underpass server uses the state folder {0}; stop it, or give another --state")]
    InUse(PathBuf),
    #[error("the server's key {0} is damaged; restore it from a backup. A new key would lock out every node")]
    Key(PathBuf),
}

/// The folder, held by this process alone.
pub(crate) struct State {
    folder: PathBuf,
    /// Held until the process ends.
    _lock: Flock<File>,
}

impl State {
    /// Opens the folder, makes it when absent.
    pub(crate) fn open(folder: &Path) -> Result<Self, StateError> {
        let wrong = |source| StateError::Folder { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"));
        let file = file.map_err(wrong)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::InUse(folder.to_owned()))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// A file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The key that nodes know the server by; made at the first start, never again.
    pub(crate) fn noise_key(&self) -> Result<MachinePrivate, StateError> {
        let path = self.path("noise.key");
        match fs::read_to_string(&path) {
            Ok(text) => MachinePrivate::from_text(text.trim()).map_err(|_| StateError::Key(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = MachinePrivate::from_random(crate::random());
                let written = write_secret(&path, format!("{}\n", key.to_text()).as_bytes());
                written.map_err(|source| StateError::Folder { path, source })?;
                Ok(key)
            }
            Err(source) => Err(StateError::Folder { path, source }),
        }
    }
}

/// Writes a file whole or not at all, readable by its owner only.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_a_damaged_one_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("deep/state")).unwrap();
        let key = state.noise_key().unwrap();
        assert!(state.noise_key().unwrap() == key);
        fs::write(state.path("noise.key"), "privkey:12").unwrap();
        assert!(matches!(state.noise_key(), Err(StateError::Key(_))));
        assert_eq!(fs::read_to_string(state.path("noise.key")).unwrap(), "privkey:12");
    }

    #[test]
    fn a_folder_serves_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert!(matches!(State::open(folder.path()), Err(StateError::InUse(_))));
        drop(state);
        State::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = State::open(&file.join("state")).err().unwrap().to_string();
        assert!(error.contains("file/state") && error.contains("--state"), "{error}");
    }
}
