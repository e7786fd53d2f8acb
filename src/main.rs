//! tokenwatch keeps the credential that Exalate logs in to Salesforce with up
//! to date. The story is in `tokenwatch::cli`; see `lib.rs` for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    tokenwatch::cli::main(std::env::args_os())
}
