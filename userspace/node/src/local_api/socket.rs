//! The socket's file: made where nobody listens, open to every local user, because permissions are judged by credentials.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tokio::net::UnixListener;

use crate::Error;

/// Binds the local API's socket at `path`. A socket that a dead daemon left behind is replaced.
///
/// # Errors
/// [`Error::InUse`] when another daemon answers there or the path is not a socket; [`Error::System`] when the folder
/// cannot be written.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let step = |verb: &str| format!("cannot {verb} the socket {}", path.display());
    let in_use = |detail: &str| Error::InUse {
        what: format!("socket {}", path.display()),
        detail: detail.to_owned(),
        flag: "--socket",
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::system(step("make the folder of"), error))?;
    }
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(in_use("there is a file that is not a socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(in_use("another node answers there")),
        Ok(_) => remove(path).map_err(|error| Error::system(step("replace"), error))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| Error::system(step("bind"), error))?;
    fs::set_permissions(path, Permissions::from_mode(0o666))
        .map_err(|error| Error::system(step("open up"), error))?;
    Ok(listener)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/node.sock");
        let first = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(listen(&path).unwrap_err().to_string().contains("another node answers there"));
        drop(first);
        listen(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path).unwrap_err().to_string().contains("--socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
