//! The relay's private key in its state folder.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use types::{KeyError, NodePrivate};

use crate::random;

const FILE: &str = "derp.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot read or write the relay's key {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there and is no key. It is not replaced: clients know the relay by it.
    #[error("{path} holds no relay key ({source}); restore it, or move it away to get a new identity")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// The key in `folder`, made at the first start, readable by its owner only.
///
/// # Errors
/// When the folder is not writable, or the file is damaged.
pub fn load_or_create(folder: &Path) -> Result<NodePrivate, KeyFileError> {
    let path = folder.join(FILE);
    let io_error = |source| KeyFileError::Io { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => NodePrivate::from_text(text.trim())
            .map_err(|source| KeyFileError::Damaged { path: path.clone(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random(NodePrivate::from_random);
            create(folder, &path, &key).map_err(io_error)?;
            Ok(key)
        }
        Err(error) => Err(io_error(error)),
    }
}

/// Written beside and renamed, so that a crash leaves no half a key.
fn create(folder: &Path, path: &Path, key: &NodePrivate) -> io::Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let key = load_or_create(&state).unwrap();
        assert!(load_or_create(&state).unwrap() == key);
        let mode = fs::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(state.join(FILE), "torn").unwrap();
        assert!(matches!(load_or_create(&state), Err(KeyFileError::Damaged { .. })));
    }
}
