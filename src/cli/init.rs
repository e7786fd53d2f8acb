//! `tokenwatch init`: the first configuration, and the vault and its key.
//!
//! What is written is `config/tokenwatch.toml`, every key with its default and
//! why, with the answers put in. It is read back as any configuration is before
//! it is where it belongs, so that nothing is left that the daemon would refuse.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::error::CliError;
use super::reach::Reach;
use super::{Ended, arguments};
use crate::config::{self, Config};
use crate::daemon::{StateError, policy};

/// Every key, its default and why.
const TEMPLATE: &str = include_str!("../../config/tokenwatch.toml");

pub(super) async fn init(given: Option<&Path>, wanted: arguments::Init) -> Ended {
    let path = place(given, wanted.output.as_deref())?;
    // Before anybody is asked anything.
    if !wanted.force && path.symlink_metadata().is_ok() {
        return Err(CliError::Exists(path).into());
    }
    let text = Answers::gather(wanted.clone())?.written();
    write(&path, &text, wanted.force)?;
    let mut err = anstream::stderr().lock();
    writeln!(err, "wrote {}", path.display())?;
    drop(err);

    let config = Arc::new(Config::load(Some(&path))?);
    let user = make_vault(&config).await?;
    say_what_is_next(&config, is_found(&path), user)?;
    Ok(ExitCode::SUCCESS)
}

/// Where it goes.
fn place(given: Option<&Path>, output: Option<&Path>) -> Result<PathBuf, CliError> {
    output
        .or(given)
        .map(Path::to_owned)
        .or_else(config::place_of_a_new_one)
        .ok_or(CliError::NoPlace)
}

/// Whether commands find it without `--config`.
fn is_found(path: &Path) -> bool {
    Config::load(None).is_ok_and(|found| found.file.as_deref() == Some(path))
}

/// What only a person knows.
struct Answers {
    state_dir: Option<String>,
    mailbox: String,
    host: String,
    user: String,
    accounts: Vec<String>,
}

impl Answers {
    /// What was given, and for the rest a person is asked. What has a good
    /// default is not.
    fn gather(wanted: arguments::Init) -> anyhow::Result<Self> {
        let may_ask = !wanted.non_interactive && io::stdin().is_terminal();
        let settle = |given: Option<String>, flag: &'static str, question: &str| match given {
            Some(given) => Ok(given),
            None if may_ask => ask(question),
            None => Err(CliError::NotGiven(flag).into()),
        };
        let host = settle(
            wanted.mailbox_host,
            "--mailbox-host",
            "The IMAP server of the mailbox that token mails come to (imap.example.com)",
        )?;
        let user = settle(
            wanted.mailbox_user,
            "--mailbox-user",
            "The user who logs in there (salesforce-admin@example.com)",
        )?;
        let accounts = if wanted.account.is_empty() {
            let question = "The Salesforce username whose credential is kept (mariana@idalko.com)";
            vec![settle(None, "--account", question)?]
        } else {
            wanted.account
        };
        Ok(Self {
            state_dir: wanted
                .state_dir
                .or_else(|| config::state_dir_of_the_system().map(str::to_owned)),
            mailbox: wanted.mailbox_name,
            host,
            user,
            accounts,
        })
    }

    /// The configuration with them in it.
    fn written(&self) -> String {
        let mut text = String::with_capacity(TEMPLATE.len());
        let mut accounts = self.accounts.iter();
        for line in TEMPLATE.lines() {
            let value = match line {
                "name = \"ops\"" => Some(("name", self.mailbox.as_str())),
                "host = \"imap.example.com\"" => Some(("host", self.host.as_str())),
                "user = \"salesforce-admin@example.com\"" => Some(("user", self.user.as_str())),
                "username = \"mariana@idalko.com\"" => {
                    accounts.next().map(|first| ("username", first.as_str()))
                }
                "# state-dir = \"/var/lib/tokenwatch\"" => {
                    self.state_dir.as_deref().map(|dir| ("state-dir", dir))
                }
                _ => None,
            };
            match value {
                Some((key, value)) => text.push_str(&pair(key, value)),
                None => text.push_str(line),
            }
            text.push('\n');
        }
        for account in accounts {
            text.push_str("\n[[account]]\n");
            text.push_str(&pair("username", account));
            text.push('\n');
        }
        text
    }
}

/// A line of TOML. What JSON escapes in a string, TOML reads as it was.
fn pair(key: &str, value: &str) -> String {
    format!("{key} = {}", serde_json::Value::from(value))
}

/// Asks until there is an answer.
fn ask(question: &str) -> anyhow::Result<String> {
    loop {
        let mut err = anstream::stderr().lock();
        write!(err, "{question}: ")?;
        err.flush()?;
        drop(err);
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer)? == 0 {
            anyhow::bail!("there was no answer; nothing was written");
        }
        let answer = answer.trim();
        if !answer.is_empty() {
            return Ok(answer.to_owned());
        }
    }
}

/// Writes the configuration, once it is known that it can be used. Without
/// `force` nothing is ever replaced, also nothing that came meanwhile.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return CliError::Exists(path.to_owned());
        }
        CliError::Unwritable {
            path: path.to_owned(),
            source,
        }
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !folder.exists() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        // The daemon's user has to get to the file, and there is no secret in it.
        std::fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(failed)?;
    }
    let draft = folder.join(format!(".tokenwatch-init-{}.toml", std::process::id()));
    let publish = || -> anyhow::Result<()> {
        let mut file = File::create_new(&draft).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.set_permissions(Permissions::from_mode(0o644))
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
        policy(&Config::load(Some(&draft))?)?;
        if force {
            std::fs::rename(&draft, path).map_err(failed)?;
        } else {
            std::fs::hard_link(&draft, path).map_err(failed)?;
        }
        let folder = File::open(folder).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        Ok(())
    };
    let published = publish();
    // With `force` it is there no more.
    std::fs::remove_file(&draft).unwrap_or_default();
    published
}

/// Makes the vault and its key where they are not there yet. The user (uid) whose
/// they must be, where that is somebody else.
async fn make_vault(config: &Arc<Config>) -> anyhow::Result<Option<u32>> {
    match Reach::open(Arc::clone(config)).await {
        Ok(Reach::Alone(mut worker)) => {
            worker.make_vault()?;
            Ok(None)
        }
        // It has one.
        Ok(Reach::Daemon(_)) => Ok(None),
        Err(error) => match error.downcast_ref::<StateError>() {
            Some(StateError::ForeignFolder { owner, .. }) => Ok(Some(*owner)),
            _ => Err(error),
        },
    }
}

fn say_what_is_next(config: &Config, is_found: bool, user: Option<u32>) -> io::Result<()> {
    let mut err = anstream::stderr().lock();
    let program = match &config.file {
        Some(file) if !is_found => format!("tokenwatch --config {}", file.display()),
        Some(_) | None => "tokenwatch".to_owned(),
    };
    let program = match user {
        Some(user) => format!("sudo -u '#{user}' {program}"),
        None => program,
    };
    if let Some((vault, key)) = super::secret::vault_files(config)
        && key.exists()
    {
        let (vault, key) = (vault.display(), key.display());
        writeln!(
            err,
            "the vault is {vault} and its key {key}: keep a copy of both"
        )?;
    }
    writeln!(err, "\nnext:")?;
    for mailbox in &config.mailboxes {
        writeln!(err, "  {program} secret set mailbox/{}", mailbox.name)?;
    }
    for account in &config.accounts {
        writeln!(err, "  {program} secret set account/{}", account.username)?;
    }
    writeln!(err, "  {program} check")?;
    writeln!(err, "  {program} run")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_put_where_they_belong() {
        let answers = Answers {
            state_dir: Some("/s \"x\"".into()),
            mailbox: "m".into(),
            host: "h".into(),
            user: "u\\".into(),
            accounts: vec!["a@b.co".into(), "c@d.co".into()],
        };
        let text = answers.written();
        for line in [
            "state-dir = \"/s \\\"x\\\"\"",
            "name = \"m\"",
            "host = \"h\"",
            "user = \"u\\\\\"",
            "username = \"a@b.co\"",
            "username = \"c@d.co\"",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}");
        }
        let added = text.lines().count() - TEMPLATE.lines().count();
        assert_eq!(added, 3, "the second account");
    }
}
