//! Named places where a test can stop, delay or kill the process: `failpoint!("raft_before_save")`.
//!
//! They exist only in builds where the `fail` crate has its feature `failpoints` (test builds of this
//! workspace) and are nothing at all otherwise. They are switched on by the environment, for example
//! `FAILPOINTS='raft_before_save=20*off->1*return(kill)'` for "die without a trace at the 21st pass", once the
//! program has called `fail::FailScenario::setup()`. `panic`, `sleep(ms)`, `pause` and `print` are the crate's own.

/// All names, by subsystem. Each stands in the code exactly once.
pub const NAMES: &[&str] = &[
    // Starting.
    "start_before_claim",
    "start_after_claim",
    "start_after_recover",
    // Raft: persisting, sending, the log.
    "raft_before_propose",
    "raft_after_propose",
    "raft_before_step",
    "raft_leader_changed",
    "raft_before_leader_send",
    "raft_after_leader_send",
    "raft_before_save",
    "raft_after_save",
    "raft_before_advance",
    "raft_after_advance",
    "raft_before_follower_send",
    "raft_after_follower_send",
    "raft_before_save_snapshot",
    "raft_after_save_snapshot",
    "raft_before_apply_snapshot",
    "raft_after_apply_snapshot",
    "raft_before_wal_release",
    "raft_after_wal_release",
    "raft_before_read_index",
    // Applying entries.
    "apply_before_batch",
    "apply_before_entry",
    "apply_after_entry",
    "apply_before_txn",
    "apply_after_txn",
    "apply_before_compact",
    "apply_before_alarm",
    "apply_before_check",
    "apply_before_write",
    "apply_after_write",
    // Answering.
    "reply_before_status",
    "reply_before_events",
    "reply_before_results",
    "reply_after_results",
    // Snapshots of the state on their way to a follower.
    "snapshot_before_open",
    "snapshot_after_open",
    "snapshot_before_sync",
    "snapshot_before_send",
    "snapshot_mid_send",
    "snapshot_after_send",
    "snapshot_before_receive",
    "snapshot_mid_receive",
    "snapshot_after_receive",
    "install_before_marker",
    "install_after_marker",
    "install_after_clear",
    "install_mid_load",
    "install_before_finish",
    "install_after_finish",
    "install_finish_at_start",
    // Compaction and cleaning behind it.
    "compact_scheduled",
    "compact_before_batch",
    "compact_after_batch",
    "compact_finished",
    // Watches.
    "watch_open",
    "watch_cancel",
    "watch_send",
    "watch_sync",
    "watch_victim",
    "watch_progress",
    // Leases.
    "lease_before_grant",
    "lease_before_keep_alive",
    "lease_before_revoke",
    "lease_before_expire",
    "lease_promote",
    "lease_before_checkpoint",
    // Other members.
    "peer_before_call",
    "peer_after_greeting",
    "peer_before_flush",
    // Backups and recovery.
    "backup_before_manifest",
    "backup_mid_blocks",
    "backup_before_sum",
    "restore_after_verify",
    "restore_mid_load",
    "restore_before_identity",
    "restore_before_rename",
    "restore_after_rename",
    "recover_before_write",
    "recover_after_write",
];

/// A place that a test can reach into.
macro_rules! failpoint {
    ($name:literal) => {
        // The crate's macro returns from the function around it: this closure.
        #[allow(clippy::redundant_closure_call, reason = "the closure is what a failpoint may return from")]
        (|| fail::fail_point!($name, |action| crate::failpoint::act($name, action.as_deref())))()
    };
}

pub(crate) use failpoint;

/// What `return(…)` means here: `kill` ends the process as SIGKILL does.
#[allow(dead_code, reason = "only called where failpoints are compiled in")]
pub fn act(name: &str, action: Option<&str>) {
    match action {
        Some("kill") => {
            // Nothing can be done if this fails, and it can't.
            let _never_returns = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
        other => panic!("failpoint {name} doesn't know the action {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn sources(dir: &Path, out: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("failpoint.rs") {
                out.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn each_name_stands_in_the_code_exactly_once() {
        assert!(fail::has_failpoints());
        let mut code = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for part in code.split("failpoint!(\"").skip(1) {
            *found.entry(part.split('"').next().unwrap()).or_default() += 1;
        }
        let wanted: BTreeMap<&str, usize> = NAMES.iter().map(|name| (*name, 1)).collect();
        assert_eq!(found, wanted);
        assert!(NAMES.len() >= 60);
    }
}
