//! The hidden `amoeba shim`: the process of a node that the supervisors of its containers are forked from.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the shim if that is what the command line asks for. Called before anything else: the shim forks, so
/// there must be no other thread yet, and what it holds is held for every container.
pub fn intercept(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    arguments.next()?;
    (arguments.next()? == "shim").then(|| kubelet::shim_main(arguments))
}
