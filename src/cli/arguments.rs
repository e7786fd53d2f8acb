//! The arguments. Their comments are what `--help` prints.
#![expect(clippy::doc_markdown, reason = "`--help` shows backticks as they are")]

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::telemetry::Format;

/// Watches IMAP inboxes for Salesforce's security token mails and keeps the
/// credential that Exalate logs in with up to date.
#[derive(Debug, Parser)]
#[command(name = "tokenwatch", version, max_term_width = 100)]
pub(super) struct Arguments {
    /// The configuration [default: the first of
    /// $XDG_CONFIG_HOME/tokenwatch/tokenwatch.toml and
    /// /etc/tokenwatch/tokenwatch.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// What is logged, such as debug or tokenwatch::mailbox=debug,info
    #[arg(long, global = true, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// How it is logged
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto")]
    pub(super) log_format: Format,
    /// When colours are used
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Colour,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon
    Run {
        /// Look through every mailbox once, finish all work, and end
        #[arg(long)]
        once: bool,
    },
    /// Have the running daemon look through the mailboxes again
    Resync(Resync),
    /// Show how the running daemon stands: exit 0 healthy, 1 not, 3 no daemon
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Show it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Look at everything that is needed, and say what is wrong with it
    Check {
        /// Leave the network out
        #[arg(long)]
        offline: bool,
    },
    /// Read saved mails as the daemon would; changes nothing
    Extract(Extract),
    /// Sign in for a mailbox that logs in by OAuth 2
    Login {
        /// The mailbox
        mailbox: String,
        /// In a browser on this machine, also where the provider has a code for any other
        #[arg(long)]
        browser: bool,
    },
    /// Set, remove and list the secrets that the daemon needs
    #[command(subcommand)]
    Secret(Secret),
    /// Get the credentials that the daemon keeps
    #[command(subcommand)]
    Credential(Credential),
    /// Decide on the mails that wait for a person
    Held(Held),
    /// Move the vault to another store, or give it another key
    #[command(subcommand)]
    Vault(Vault),
    /// Write a first configuration, and make the vault and its key
    Init(Init),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man pages, one behind the other
    Man {
        /// Write each into a file of its own in this folder, which is there
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Resync {
    /// This mailbox only
    #[arg(long, value_name = "NAME")]
    pub(super) mailbox: Option<String>,
    /// How far back: 30d, 2026-01-01 or all [default: as the mailbox has it]
    #[arg(long, value_name = "SINCE")]
    pub(super) since: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(super) no_wait: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Extract {
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Show the tokens
    #[arg(long)]
    pub(super) reveal: bool,
    /// Mails (.eml), mbox files, Maildir folders; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Set a secret; asks for it, or reads it from standard input
    Set {
        /// mailbox/NAME or account/USERNAME; with OAuth 2 oauth/NAME, client/NAME;
        /// for sinks sink/NAME, sink/NAME/HEADER
        name: String,
    },
    /// Remove a secret
    Remove {
        /// mailbox/NAME or account/USERNAME; with OAuth 2 oauth/NAME, client/NAME;
        /// for sinks sink/NAME, sink/NAME/HEADER
        name: String,
    },
    /// List the names of the secrets that are set
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Credential {
    /// List the accounts and how they stand
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print password and token as one, and nothing else
    Get {
        /// The Salesforce username
        username: String,
    },
    /// Make the token before the current one current again
    Rollback {
        /// The Salesforce username
        username: String,
    },
    /// Show the tokens that came, the newest first
    History {
        /// The Salesforce username
        username: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Held {
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: Option<HeldVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum HeldVerb {
    /// List them, the newest first; this is what `held` alone does
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Fetch a mail again, show what it will change, and take its token
    Accept {
        /// Its number in the list
        id: i64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Leave a mail for good
    Drop {
        /// Its number in the list
        id: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Vault {
    /// Move every secret to another store, and prove it by reading back
    Move {
        /// The store
        #[arg(long, value_name = "STORE")]
        to: Store,
        /// Where the new store has another secret under a name, replace it
        #[arg(long)]
        replace: bool,
    },
    /// Give the encrypted file another key; with `key = "passphrase"` also another passphrase
    Rekey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    /// The encrypted file
    File,
    /// The desktop's Secret Service
    Native,
    /// The kernel's keyring
    Keyutils,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Init {
    /// The IMAP server of the mailbox that token mails come to
    #[arg(long, value_name = "HOST")]
    pub(super) mailbox_host: Option<String>,
    /// The user who logs in there
    #[arg(long, value_name = "USER")]
    pub(super) mailbox_user: Option<String>,
    /// What you call the mailbox
    #[arg(long, value_name = "NAME", default_value = "ops")]
    pub(super) mailbox_name: String,
    /// The Salesforce username whose credential is kept; may be given several times
    #[arg(long, value_name = "USERNAME")]
    pub(super) account: Vec<String>,
    /// Where vault and journal are [default: as root /var/lib/tokenwatch, else as the
    /// environment says at each start]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<String>,
    /// The file that is written [default: --config, else as root
    /// /etc/tokenwatch/tokenwatch.toml, else $XDG_CONFIG_HOME/tokenwatch/tokenwatch.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Replace a configuration that is there
    #[arg(long)]
    pub(super) force: bool,
    /// Ask nothing
    #[arg(long)]
    pub(super) non_interactive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    Auto,
    Always,
    Never,
}

impl Colour {
    /// Makes it the choice for everything that is printed.
    pub(super) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }

    pub(super) fn for_stderr(self) -> bool {
        match self {
            Self::Auto => {
                std::io::stderr().is_terminal()
                    && anstream::AutoStream::choice(&std::io::stderr())
                        != anstream::ColorChoice::Never
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}
