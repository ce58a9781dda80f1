//! `completions`: a script that lets a shell complete commands and options.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Failure;

/// For whom.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell that is to complete.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Args::command(),
        env!("CARGO_PKG_NAME"),
        &mut script,
    );
    super::hand_out(&script)
}
