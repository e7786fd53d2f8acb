//! The command line: arguments → log → command → exit code.
//!
//! One file a command. Standard output is data, everything else goes to
//! standard error. Errors read `error:`, `caused by:`, `hint:`.

mod arguments;
mod check;
mod client;
mod credential;
mod error;
mod extract;
mod generated;
mod held;
mod init;
mod login;
mod reach;
mod resync;
mod run;
mod secret;
mod status;
mod vault;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;
use crate::telemetry;
use arguments::{Arguments, Command};
use error::complain;

/// What a command ends with.
type Ended = anyhow::Result<ExitCode>;

/// All of it. The first of `words` is the program's name.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    harden();
    std::panic::set_hook(Box::new(|panic| {
        // The place and not the message, which may quote what was worked on.
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            event = "panic",
            place,
            "a fault of tokenwatch: please report it"
        );
    }));
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Nothing can be told where standard error is gone.
            usage.print().unwrap_or_default();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    arguments.color.apply();
    match perform(arguments) {
        Ok(code) => code,
        Err(error) => complain(&error),
    }
}

fn perform(arguments: Arguments) -> Ended {
    let is_daemon = matches!(arguments.command, Command::Run { .. });
    let usual = if is_daemon { "info" } else { "warn" };
    let filter = arguments.log.as_deref().unwrap_or(usual);
    let colour = arguments.color.for_stderr();
    telemetry::init(filter, arguments.log_format, colour)?;
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Run { once } => run::run(Config::load(file)?, once),
        Command::Resync(wanted) => wait_for(resync::resync(&Config::load(file)?, &wanted)),
        Command::Status { json, watch } => {
            wait_for(status::status(&Config::load(file)?, json, watch))
        }
        Command::Check { offline } => wait_for(check::check(file, offline)),
        Command::Extract(wanted) => {
            wait_for(extract::extract(Config::load_or_default(file)?, &wanted))
        }
        Command::Login { mailbox, browser } => {
            wait_for(login::login(Config::load(file)?, &mailbox, browser))
        }
        Command::Secret(verb) => wait_for(secret::secret(Config::load(file)?, verb)),
        Command::Held(wanted) => wait_for(held::held(Config::load(file)?, wanted)),
        Command::Init(wanted) => wait_for(init::init(file, wanted)),
        Command::Completions { shell } => generated::completions(shell),
        Command::Man { folder } => generated::man(folder.as_deref()),
        Command::Credential(verb) => wait_for(credential::credential(Config::load(file)?, verb)),
        Command::Vault(verb) => wait_for(vault::vault(Config::load(file)?, verb)),
    }
}

/// Runs what needs no more than one thread.
fn wait_for(command: impl Future<Output = Ended>) -> Ended {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// What is made from here on is its owner's alone, and no core dump shows what
/// is in memory. Where the system refuses, it goes on without: the files'
/// modes are set one by one as well.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};

    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).unwrap_or_default();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap_or_default();
}

/// Standard output, with colour where it is wanted.
fn stdout() -> anstream::AutoStream<std::io::StdoutLock<'static>> {
    anstream::AutoStream::auto(std::io::stdout().lock())
}

/// Prints JSON on a line of its own.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = stdout();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    out.flush()?;
    Ok(())
}
