//! The control socket: bound where it is free, owned by whom it should be, and
//! taken away again.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The file system says no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another daemon listens there.
    #[error("another tokenwatch listens on {0}")]
    InUse(PathBuf),
}

/// The socket, bound.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode: whether the socket there is still ours.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Binds in the first place where it can: another state folder's daemon may
    /// have the run-time folder's, or another user own that folder. The last is
    /// the state folder, which nobody else has: its vault and journal are locked.
    pub(super) async fn bind_first(
        places: &[PathBuf],
        state_dir: &Path,
    ) -> Result<Self, ControlError> {
        let mut bound = Err(ControlError::InUse(state_dir.to_owned()));
        for place in places {
            bound = Self::bind(place, state_dir).await;
            match &bound {
                Ok(_) => break,
                Err(error) => tracing::warn!(event = "control.elsewhere",
                    error = %crate::chain(error), "the control socket cannot be here"),
            }
        }
        bound
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Binds. A socket that a crash left behind is taken over. In a run-time
    /// folder the group may call; in the state folder everything is its
    /// owner's alone.
    async fn bind(path: &Path, state_dir: &Path) -> Result<Self, ControlError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| ControlError::Io {
                doing,
                path,
                source,
            }
        };
        if let Some(folder) = path.parent() {
            tokio::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .await
                .map_err(failed("make", folder))?;
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(ControlError::InUse(path.to_owned()));
        }
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        // The process's umask keeps others out until the mode is set.
        let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
        let mode = if path.starts_with(state_dir) {
            0o600
        } else {
            0o660
        };
        tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .await
            .map_err(failed("set the mode of", path))?;
        Ok(Self {
            socket: listener,
            identity: identity(path),
            path: path.to_owned(),
        })
    }

    /// The socket itself.
    pub(super) fn into_parts(self) -> (UnixListener, Place) {
        let place = Place {
            path: self.path,
            identity: self.identity,
        };
        (self.socket, place)
    }
}

/// Where the socket was bound.
pub(super) struct Place {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Place {
    /// Takes the socket away, unless the next daemon has taken the place.
    pub(super) async fn leave(self) {
        if self.identity.is_some()
            && identity(&self.path) == self.identity
            && let Err(error) = tokio::fs::remove_file(&self.path).await
        {
            tracing::debug!(event = "control.socket", %error, "the socket stays");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let socket = std::fs::symlink_metadata(path).ok()?;
    Some((socket.dev(), socket.ino()))
}
