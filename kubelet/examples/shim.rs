//! The container supervisor as a program of its own, for tests of the native runtime. The `amoeba` binary
//! has the same as its hidden subcommand `shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubelet::shim_main(std::env::args_os().skip(1))
}
