//! A file for each account, whole at every moment: temporary file → fsync → rename → fsync of
//! the folder.
//!
//! The folder may belong to who reads the file. So nothing that lies there under our names is
//! opened for writing: the temporary file is made anew, and a link in the file's place is
//! replaced and not followed.

use std::fs::{self, File as Handle, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};
use zeroize::Zeroizing;

use super::render;
use super::template::{self, Template};
use super::{Credential, Delivered, FileOptions, Format, SinkError};

/// Where it is, what stands in it, and who may read it.
#[derive(Debug)]
pub(super) struct File {
    /// With `{username}` in it, where there is one for each account.
    path: String,
    content: Content,
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

#[derive(Debug)]
enum Content {
    Env,
    DockerEnv,
    Json,
    Raw,
    Template(Box<Template>),
}

impl File {
    pub(super) fn new(options: &FileOptions) -> Result<Self, SinkError> {
        let unusable = || SinkError::Path(options.path.clone());
        let path = options.path.to_str().ok_or_else(unusable)?.to_owned();
        if path.ends_with('/') || path.contains('\0') || options.path.file_name().is_none() {
            return Err(unusable());
        }
        let (user, group) = match &options.owner {
            Some(owner) => ids(owner)?,
            None => (None, None),
        };
        Ok(Self {
            path,
            content: match &options.format {
                Format::Env => Content::Env,
                Format::DockerEnv => Content::DockerEnv,
                Format::Json => Content::Json,
                Format::Raw => Content::Raw,
                Format::Template(path) => {
                    Content::Template(Box::new(Template::read(path, template::OF_A_FILE)?))
                }
            },
            mode: options.mode & 0o777,
            user,
            group,
        })
    }

    /// Writes the file, unless it is as it should be.
    pub(super) fn write(&self, credential: &Credential) -> Result<Delivered, SinkError> {
        let (path, content) = (
            self.path_of(&credential.username),
            self.content_of(credential)?,
        );
        if self.holds(&path, &content) {
            return Ok(Delivered::Already);
        }
        self.replace(&path, &content)?;
        Ok(Delivered::New)
    }

    /// Whether the file is as it should be.
    pub(super) fn is_right(&self, credential: &Credential) -> bool {
        self.content_of(credential)
            .is_ok_and(|content| self.holds(&self.path_of(&credential.username), &content))
    }

    /// Whether files can be made in the folder of this user's.
    pub(super) fn look(&self, username: &str) -> Result<(), SinkError> {
        let path = self.path_of(username);
        let folder = folder(&path);
        // Who may write into a folder and not pass through it makes no file there.
        rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(io::Error::from)
            .map_err(failed("write to", folder))
    }

    fn path_of(&self, username: &str) -> PathBuf {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"@._+-".contains(&b);
        let username = render::encoded(username, is_plain);
        PathBuf::from(self.path.replace("{username}", &username))
    }

    fn content_of(&self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, SinkError> {
        let content = match &self.content {
            Content::Env => render::env(credential)?,
            Content::DockerEnv => render::docker_env(credential)?,
            Content::Json => render::json_line(&render::Object::of(credential)),
            Content::Raw => render::raw(credential),
            Content::Template(template) => template.render(credential)?,
        };
        Ok(content.into_bytes())
    }

    /// What cannot be looked at is not as it should be: writing says why.
    fn holds(&self, path: &Path, content: &[u8]) -> bool {
        // A pipe in its place must not keep us waiting.
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
        let Ok(file) = options.open(path) else {
            return false;
        };
        let Ok(found) = file.metadata() else {
            return false;
        };
        let user = self
            .user
            .unwrap_or_else(|| rustix::process::geteuid().as_raw());
        found.is_file()
            && found.mode() & 0o7777 == self.mode
            && found.uid() == user
            && self.group.is_none_or(|group| found.gid() == group)
            && usize::try_from(found.len()).is_ok_and(|length| length == content.len())
            && is_content(file, content)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), SinkError> {
        let mut temporary = path.as_os_str().to_owned();
        // No username becomes a name with `~` in it, so this is the file of no other account.
        temporary.push(".new~");
        let temporary = PathBuf::from(temporary);
        // One that a crash left behind may be anybody's by now.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &temporary)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let placed = self
            .fill(&temporary, content)
            .and_then(|()| fs::rename(&temporary, path).map_err(failed("rename", &temporary)));
        if let Err(error) = placed {
            // It holds the secret, or half of it. That it cannot be removed says less than why.
            fs::remove_file(&temporary).unwrap_or_default();
            return Err(error);
        }
        let folder = folder(path);
        Handle::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("fsync", folder))
    }

    /// Mode and owner come before the secret does: the group first, so that the mode lets in
    /// nobody who could keep the file open until the secret is in it; the user last, because a
    /// file that was given away is not ours to change any more.
    fn fill(&self, temporary: &Path, content: &[u8]) -> Result<(), SinkError> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(self.mode & 0o700)
            .custom_flags(flags(OFlags::NOFOLLOW))
            .open(temporary)
            .map_err(failed("make", temporary))?;
        let made = file.metadata().map_err(failed("look at", temporary))?;
        let give = |user: Option<u32>, group: Option<u32>| {
            fchown(&file, user, group).map_err(failed("set the owner of", temporary))
        };
        if self.group.is_some_and(|group| group != made.gid()) {
            give(None, self.group)?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(failed("set the mode of", temporary))?;
        if self.user.is_some_and(|user| user != made.uid()) {
            give(self.user, None)?;
        }
        file.write_all(content)
            .map_err(failed("write", temporary))?;
        file.sync_all().map_err(failed("fsync", temporary))
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn is_content(file: Handle, content: &[u8]) -> bool {
    let mut found = Zeroizing::new(Vec::with_capacity(content.len().saturating_add(1)));
    let limit = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let read = file.take(limit).read_to_end(&mut found);
    read.is_ok() && *found == content
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SinkError {
    let path = path.to_owned();
    move |source| SinkError::Io {
        doing,
        path,
        source,
    }
}

/// The numbers of `user:group`, `user` or `:group`. Names are looked up in the two files alone:
/// whoever keeps users elsewhere writes the numbers.
fn ids(owner: &str) -> Result<(Option<u32>, Option<u32>), SinkError> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    Ok((
        number("user", user, "/etc/passwd")?,
        number("group", group, "/etc/group")?,
    ))
}

fn number(kind: &'static str, name: &str, file: &str) -> Result<Option<u32>, SinkError> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let known = fs::read_to_string(file).map_err(failed("read", Path::new(file)))?;
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    match known.lines().find_map(of_line) {
        Some(number) => Ok(Some(number)),
        None => Err(SinkError::Owner {
            kind,
            name: name.to_owned(),
        }),
    }
}
