//! Looks after a runtime's containers: tells how they end, and keeps their logs from growing.
//!
//! The interface has no other way to hear of an end that every runtime knows: upstream lists once a second, we
//! do twice, and at once after something was asked to end. A runtime that tells of events is looked at when it does.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::container::{FROM_LOGS, MESSAGE_POLICY};
use super::proto::{self, ContainerState};
use super::state::{Known, Shared};
use crate::pod::ContainerId;
use crate::runtime::{Exit, RuntimeEvent};
use crate::shim::{last_words, log};

/// Between two looks at the sizes of logs, as upstream.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Watches for as long as the runtime's driver lives.
pub async fn watch(shared: Arc<Shared>) {
    let mut next_logs = Instant::now() + LOG_INTERVAL;
    let mut silent = false;
    loop {
        tokio::select! {
            () = sleep(shared.pause()) => {}
            () = shared.look.notified() => {}
        }
        let looked = look(&shared).await;
        if let (Err(status), false) = (&looked, silent) {
            tracing::warn!(error = %super::client::text(status), "the container runtime doesn't answer");
        }
        silent = looked.is_err();
        if next_logs <= Instant::now() {
            rotate_logs(&shared).await;
            next_logs = Instant::now() + LOG_INTERVAL;
        }
    }
}

/// Compares what runs with what was known to.
async fn look(shared: &Shared) -> Result<(), tonic::Status> {
    // Before the list: what is made meanwhile isn't on it.
    let living = shared.living();
    if living.is_empty() {
        return Ok(());
    }
    let listed = shared.client.containers(shared.agents_labels()).await?;
    let states: BTreeMap<&str, ContainerState> =
        listed.iter().map(|container| (container.id.as_str(), container.state())).collect();
    for (id, known) in living {
        let exit = match states.get(id.0.as_str()) {
            Some(ContainerState::ContainerCreated | ContainerState::ContainerRunning) => continue,
            Some(_) => exit_of(shared, &id, &known).await?,
            None => Exit::unknown(known.life.started_at().unwrap_or(Timestamp::UNIX_EPOCH), Timestamp::now()),
        };
        if shared.end(&id) {
            // The receiver is gone only when the agent ends.
            let _ = shared.events.send(RuntimeEvent { pod: known.pod, id, exit }).await;
        }
    }
    Ok(())
}

/// How a container ended, in full.
pub async fn exit_of(shared: &Shared, id: &ContainerId, known: &Known) -> Result<Exit, tonic::Status> {
    let status = shared.client.container_status(id).await?;
    let words = shared.run_dir(&known.pod, &known.container, known.attempt).join(super::state::LAST_WORDS);
    let from_logs = status.annotations.get(MESSAGE_POLICY).is_some_and(|policy| policy == FROM_LOGS);
    let log = from_logs.then(|| shared.log_path(&known.pod, &known.container, known.attempt));
    Ok(exit(&status, last_words::read(Some(&words), log.as_deref(), status.exit_code)))
}

/// What the runtime says of an end, with the container's last words.
pub fn exit(status: &proto::ContainerStatus, words: Option<String>) -> Exit {
    let usual = matches!(status.reason.as_str(), "" | "Completed" | "Error");
    Exit {
        code: status.exit_code,
        reason: Some(status.reason.clone()).filter(|_| !usual),
        message: words.or_else(|| Some(status.message.clone()).filter(|text| !text.is_empty())),
        started_at: time(status.started_at).or(Some(Timestamp::UNIX_EPOCH)),
        finished_at: time(status.finished_at).unwrap_or_else(Timestamp::now),
    }
}

/// Nanoseconds since 1970; 0 is no time.
pub fn time(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok().filter(|_| nanoseconds > 0)
}

/// Moves logs away that have grown too large, and has the runtime open them anew.
async fn rotate_logs(shared: &Shared) {
    for (id, known) in shared.living() {
        let path = shared.log_path(&known.pod, &known.container, known.attempt);
        let limits = shared.limits;
        let turned = tokio::task::spawn_blocking(move || turn(&path, limits)).await;
        match turned.map_err(io::Error::other).and_then(|turned| turned) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(status) = shared.client.reopen_log(&id).await {
                    tracing::warn!(container = %id, error = %super::client::text(&status), "reopen a log");
                }
            }
            Err(error) => tracing::warn!(container = %id, %error, "rotate a log"),
        }
    }
}

/// True if the file was moved away.
fn turn(path: &Path, limits: crate::config::LogLimits) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() >= limits.max_size => log::rotate(path, limits).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reason: &str) -> proto::ContainerStatus {
        proto::ContainerStatus {
            exit_code: 3,
            reason: reason.to_owned(),
            message: "runc says".to_owned(),
            started_at: 2_000_000_000,
            finished_at: 3_000_000_000,
            ..Default::default()
        }
    }

    #[test]
    fn an_end_has_the_runtimes_reason_only_where_it_says_more() {
        for (said, want) in [("Error", None), ("Completed", None), ("OOMKilled", Some("OOMKilled"))] {
            let exit = exit(&status(said), Some("words".to_owned()));
            assert_eq!(
                (exit.code, exit.reason.as_deref(), exit.message.as_deref()),
                (3, want, Some("words"))
            );
            assert_eq!(exit.started_at.map(Timestamp::as_second), Some(2));
            assert_eq!(exit.finished_at.as_second(), 3);
        }
        assert_eq!(exit(&status("StartError"), None).message.as_deref(), Some("runc says"));
    }

    #[test]
    fn a_log_is_turned_when_it_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        let limits = crate::config::LogLimits { max_size: 4, max_files: 2 };
        assert!(!turn(&path, limits).expect("no file is no error"));
        std::fs::write(&path, "abc").expect("written");
        assert!(!turn(&path, limits).expect("small"));
        std::fs::write(&path, "abcd").expect("written");
        assert!(turn(&path, limits).expect("full"));
        assert!(!path.exists() && dir.path().join("0.log.1").exists());
    }
}
