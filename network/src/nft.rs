//! The kernel's rules, changed by `nft` (package `nftables`), as upstream's proxy does.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why the rules couldn't be changed. The kernel has kept the old ones.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program can't be run.
    #[error("run nft (Debian's package nftables)")]
    Run(#[source] std::io::Error),
    /// The program or the kernel refused.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// Carries out a script, whole or not at all.
pub async fn run(script: &str) -> Result<(), NftError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(NftError::Run)?;
    let mut input = child.stdin.take().expect("was asked for");
    // A program that ends early says why on its standard error.
    let written = input.write_all(script.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.map_err(NftError::Run)?;
    if output.status.success() {
        return written.map_err(NftError::Run);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(words.lines().take(3).collect::<Vec<_>>().join(" ")))
}
