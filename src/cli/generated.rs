//! `tokenwatch completions` and `tokenwatch man`: made from the arguments, so
//! that they never say anything else than `--help`.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::arguments::Arguments;
use super::error::CliError;
use super::{Ended, stdout};

pub(super) fn completions(shell: Shell) -> Ended {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "tokenwatch", &mut script);
    let mut out = stdout();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints all pages, or writes each into a file of `folder`.
pub(super) fn man(folder: Option<&Path>) -> Ended {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut found = Vec::new();
    pages(&command, &mut found)?;
    let Some(folder) = folder else {
        let mut out = stdout();
        for (_, page) in &found {
            out.write_all(page)?;
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    for (name, page) in &found {
        let path = folder.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(page)?;
            // They are for everybody, other than what we write elsewhere.
            file.set_permissions(Permissions::from_mode(0o644))
        };
        write().map_err(|source| CliError::Unwritable {
            path: path.clone(),
            source,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of a command and those of its verbs, by their file names.
fn pages(command: &Command, found: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let man = Man::new(command.clone()).manual("tokenwatch");
    let mut page = Vec::new();
    man.render(&mut page)?;
    found.push((man.get_filename(), page));
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .try_for_each(|verb| pages(verb, found))
}
