//! The kernel's rules, changed by `nft` (package `nftables`), as upstream's proxy does.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::table::{Table, between, removal};

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

/// A table of the kernel that is kept as it should be.
pub struct Kept {
    name: String,
    frame: String,
    /// What the kernel was told last; nothing is known of what an earlier run left.
    told: Option<Table>,
}

impl Kept {
    /// The table of this name, in this frame of hooks and maps.
    pub fn new(name: impl Into<String>, frame: impl Into<String>) -> Self {
        Self { name: name.into(), frame: frame.into(), told: None }
    }

    /// Tells the kernel the difference to what it was told; all, if that is nothing or the kernel doesn't agree.
    ///
    /// # Errors
    /// The kernel refuses the whole table, too.
    pub async fn bring(&mut self, table: Table) -> Result<(), NftError> {
        if let Some(old) = self.told.take() {
            let script = between(&self.name, &old, &table);
            let changed = if script.is_empty() { Ok(()) } else { run(&script).await };
            match changed {
                Ok(()) => {
                    self.told = Some(table);
                    return Ok(());
                }
                // Somebody else may have changed the table: lay it out whole.
                Err(error) => {
                    tracing::warn!(%error, table = self.name, "change rules; they are laid out anew")
                }
            }
        }
        let lay_out = between(&self.name, &Table::default(), &table);
        run(&format!("{}{}{lay_out}", removal(&self.name), self.frame)).await?;
        self.told = Some(table);
        Ok(())
    }

    /// Takes the table away, if it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove(&mut self) -> Result<(), NftError> {
        self.told = None;
        run(&removal(&self.name)).await
    }
}

/// Carries out a script, whole or not at all.
///
/// # Errors
/// The program or the kernel refuses; nothing has changed then.
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
