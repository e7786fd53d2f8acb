//! Where the configuration, the state and the socket are: what the
//! environment says, and what it is without it.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::secret::Secret;

/// What the names of variables that set a key begin with.
const OVERRIDE: &str = "TOKENWATCH__";

const FILE: &str = "tokenwatch/tokenwatch.toml";

/// The configuration file: `given`, else the first that is there.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(named) = variable("TOKENWATCH_CONFIG") {
        return Ok(named);
    }
    let searched: Vec<PathBuf> = home("XDG_CONFIG_HOME", ".config")
        .into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|base| base.join(FILE))
        .collect();
    // One in a folder that we may not look into is there, as far as we know.
    match searched
        .iter()
        .find(|path| path.try_exists().unwrap_or(true))
    {
        Some(found) => Ok(found.clone()),
        None => Err(ConfigError::NotFound { searched }),
    }
}

/// Where a first configuration belongs: root's is the system's.
pub fn place_of_a_new_one() -> Option<PathBuf> {
    variable("TOKENWATCH_CONFIG").or_else(|| {
        let base = if rustix::process::geteuid().is_root() {
            Some(PathBuf::from("/etc"))
        } else {
            home("XDG_CONFIG_HOME", ".config")
        };
        base.map(|base| base.join(FILE))
    })
}

/// The state folder that a configuration of the system's has to name; a user's
/// need not, for it is the same for all that the user runs.
pub fn state_dir_of_the_system() -> Option<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then_some("/var/lib/tokenwatch")
}

/// The state folder where the configuration names none.
pub(super) fn state_dir() -> PathBuf {
    // systemd gives several as a list with colons; ours is the first.
    if let Some(given) = env::var_os("STATE_DIRECTORY").filter(|v| !v.is_empty()) {
        return env::split_paths(&given).next().unwrap_or_default();
    }
    home("XDG_STATE_HOME", ".local/state").map_or_else(
        || PathBuf::from("/var/lib/tokenwatch"),
        |base| base.join("tokenwatch"),
    )
}

/// Where the control socket may be. A daemon that systemd runs has its own
/// run-time folder, which a person's shell knows nothing of, so the usual one is
/// looked at too.
pub fn sockets(state_dir: &Path) -> Vec<PathBuf> {
    let mut sockets = sockets_to_serve(state_dir);
    sockets.push(PathBuf::from("/run/tokenwatch/control.sock"));
    sockets
}

/// Where a daemon puts its control socket: the first place that no daemon of
/// another state folder has taken.
pub fn sockets_to_serve(state_dir: &Path) -> Vec<PathBuf> {
    let runtime = env::var_os("RUNTIME_DIRECTORY")
        .filter(|v| !v.is_empty())
        .and_then(|list| env::split_paths(&list).next());
    let in_session = || variable("XDG_RUNTIME_DIR").map(|base| base.join("tokenwatch"));
    runtime
        .or_else(in_session)
        .into_iter()
        .chain([state_dir.to_owned()])
        .map(|folder| folder.join("control.sock"))
        .collect()
}

/// Where systemd puts the credentials of this unit.
pub fn credentials_directory() -> Option<PathBuf> {
    variable("CREDENTIALS_DIRECTORY")
}

/// The variables that set keys of the configuration, in the order of their names.
pub(super) fn overrides() -> Vec<(String, OsString)> {
    let is_ours = |name: &str| {
        let prefix = name.get(..OVERRIDE.len());
        prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(OVERRIDE))
    };
    let mut found: Vec<_> = env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| is_ours(name))
        .collect();
    found.sort();
    found
}

/// Where programs are looked for whose names say no folder.
pub fn programs() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect())
}

/// The variables that are for the daemon alone: systemd's way to talk to it, and its own
/// configuration. A child that had them could speak in its name.
pub fn not_for_children() -> Vec<OsString> {
    let is_ours = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name == b"NOTIFY_SOCKET"
            || [b"WATCHDOG_".as_slice(), b"LISTEN_", b"TOKENWATCH__"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(is_ours).collect()
}

/// What the environment says of proxies: `HTTPS_PROXY`, `ALL_PROXY` and
/// `NO_PROXY`, each also in lower case. A proxy's password may stand in one.
pub(super) fn proxies() -> [Option<Secret>; 3] {
    ["https_proxy", "all_proxy", "no_proxy"].map(|name| {
        let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        given(&name.to_ascii_uppercase())
            .or_else(|| given(name))
            .map(Secret::new)
    })
}

/// Whether standard error goes to the journal: systemd says which socket it
/// gave, by device and inode (systemd.exec(5), `$JOURNAL_STREAM`).
pub fn stderr_is_the_journal() -> bool {
    let Ok(given) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| given == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn home(variable_name: &str, under_home: &str) -> Option<PathBuf> {
    variable(variable_name)
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(under_home)))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}
