//! `amoeba completion SHELL`

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::failure::Failure;

/// Print a completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "Bash:  source <(amoeba completion bash)\nZsh:   source <(amoeba completion zsh)\n\
                        Fish:  amoeba completion fish | source")]
pub struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "amoeba", &mut script);
    super::say_raw(&String::from_utf8_lossy(&script));
    Ok(())
}
