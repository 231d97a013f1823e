//! The supervisor of one container: the hidden subcommand `amoeba shim ARGS…`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the shim with the arguments that follow the subcommand's name. Must be called before any thread
/// is started: it forks.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = args.into_iter();
    ExitCode::FAILURE
}
