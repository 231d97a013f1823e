//! Kills members at their failpoints, one after the other, under load, and judges what they had promised.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{ATTEMPT, Clients};
use super::disturb::{id_of, leader};
use super::group::{Group, Program, SNAPSHOT_COUNT, Shape};
use super::oracle::judge;
use super::random::Random;
use super::recovery::recover;
use super::schedule::{Tasks, inside};
use super::workload::Run;
use crate::checkout;

/// How long the workload may take to reach a failpoint. A watcher falls behind after five seconds.
const REACH: Duration = Duration::from_secs(15);

/// Of each member whose disk is filled.
const DISK_MIB: u64 = 192;

/// All names that the store knows, as its source lists them.
///
/// # Panics
/// If the list isn't where it was.
pub fn names() -> Vec<String> {
    let source =
        std::fs::read_to_string(checkout().join("store/src/failpoint.rs")).expect("the list of names");
    let list = source.split_once("pub const NAMES").expect("the list begins").1;
    let list = list.split_once("= &[").expect("the list begins").1.split_once("];").expect("the list ends").0;
    let quoted = list.lines().filter_map(|line| line.trim().strip_prefix('"'));
    quoted.map(|line| line.trim_end_matches(',').trim_end_matches('"').to_owned()).collect()
}

/// Where a member stands when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The only member.
    Alone,
    /// One of three, not the leader.
    Follower,
    /// The leader of three.
    Leader,
}

impl Place {
    /// All.
    pub const ALL: [Self; 3] = [Self::Alone, Self::Follower, Self::Leader];

    fn members(self) -> usize {
        if self == Self::Alone { 1 } else { 3 }
    }

    /// Whether a member here can come by. What belongs to the tools for restoring is theirs.
    pub fn has(self, name: &str) -> bool {
        let among_others = ["snapshot_", "install_", "peer_"].iter().any(|prefix| name.starts_with(prefix))
            || name.ends_with("_save_snapshot")
            || name.ends_with("_apply_snapshot");
        // The receiver writes what it is sent into tables, and syncs them.
        let receives = name.ends_with("_receive") || name == "snapshot_before_sync";
        let sends = name.starts_with("snapshot_") && !receives;
        let installs = among_others && !sends && !name.starts_with("peer_");
        // What only a leader does.
        let leads = ["compact_scheduled", "lease_promote", "lease_before_keep_alive"].contains(&name);
        match self {
            _ if of_tools(name) => false,
            Self::Alone => !among_others,
            Self::Follower => !sends && !leads,
            Self::Leader => !installs,
        }
    }
}

/// Whether it is passed by a tool, not by a member that runs.
pub fn of_tools(name: &str) -> bool {
    name.starts_with("restore_") || name.starts_with("recover_")
}

/// One death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The failpoint.
    pub name: String,
    /// Whose.
    pub place: Place,
    /// How often it is passed before it kills.
    pub passes: u64,
}

impl Trial {
    /// Of a name that is passed all the time, some later passage; of others the first.
    pub fn new(name: &str, place: Place, random: &mut Random) -> Self {
        let rare = ["snapshot", "wal", "changed", "compact", "alarm", "check"];
        let often = ["raft_", "apply_", "reply_", "watch_send", "peer_before_flush"];
        let hot = often.iter().any(|prefix| name.starts_with(prefix))
            && !rare.iter().any(|part| name.contains(part));
        Self { name: name.to_owned(), place, passes: if hot { random.below(40) } else { 0 } }
    }

    /// For `$FAILPOINTS`.
    fn setting(&self) -> String {
        match self.passes {
            0 => format!("{}=return(kill)", self.name),
            passes => format!("{}={passes}*off->return(kill)", self.name),
        }
    }

    /// What else the failpoint needs to be passed.
    pub fn need(&self) -> Need {
        match self.name.as_str() {
            "apply_before_alarm" => Need::FullDisk,
            "compact_scheduled" => Need::ShortHistory,
            _ => Need::Nothing,
        }
    }

    /// Whether the member has to have fallen behind, so that it needs a snapshot.
    fn behind(&self) -> bool {
        self.place == Place::Follower && (self.name.contains("snapshot") || self.name.starts_with("install_"))
    }

    /// Whether another member has to have fallen behind.
    fn other_behind(&self) -> bool {
        self.place == Place::Leader && self.name.contains("snapshot")
    }
}

/// Trials with different needs don't share a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The usual.
    Nothing,
    /// A disk that fills up.
    FullDisk,
    /// History that the store itself compacts soon.
    ShortHistory,
}

impl Need {
    fn shape(self, place: Place) -> Shape {
        let plain = Shape::plain(Program::Amoeba, place.members());
        match self {
            Self::Nothing => plain,
            Self::FullDisk => Shape { disk_mib: Some(DISK_MIB), ..plain },
            Self::ShortHistory => {
                let arguments = ["--auto-compaction-retention", "6s"].map(str::to_owned).to_vec();
                Shape { arguments, ..plain }
            }
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.place, self.setting())
    }
}

/// Carries out trials of one place in one group. Returns those that were reached.
///
/// # Errors
/// Every promise that was broken, in words, with the trials that it was broken in.
pub fn round(place: Place, trials: &[Trial], seed: u64) -> Result<BTreeSet<String>, Vec<String>> {
    let need = trials.first().map_or(Need::Nothing, Trial::need);
    let mut group = Group::start(need.shape(place));
    let clients = group.switch.clients.handle().expect("a descriptor");
    let verdict = inside(&clients, judged(&mut group, trials, seed));
    verdict.map_err(|violations| {
        group.explain();
        let all: Vec<_> = trials.iter().map(ToString::to_string).collect();
        violations.into_iter().map(|what| format!("{what}; the trials were {all:?}")).collect()
    })
}

async fn judged(group: &mut Group, trials: &[Trial], seed: u64) -> Result<BTreeSet<String>, Vec<String>> {
    let run = Arc::new(Run::new(Clients::connect(&group.endpoints()).await, seed));
    recover(&run).await.map_err(|what| vec![what])?;
    let mut tasks = Tasks::spawn(&run);
    tasks.maintain(&run);
    if trials.iter().any(|trial| trial.need() == Need::ShortHistory) {
        run.compacts_by_itself();
    }
    let mut reached = BTreeSet::new();
    for trial in trials {
        let begun = Instant::now();
        let died = carry_out(&run, group, trial).await;
        println!("{trial}: {} after {:.1?}", if died { "reached" } else { "NOT reached" }, begun.elapsed());
        if died {
            reached.insert(trial.name.clone());
        }
        recover(&run).await.map_err(|what| vec![format!("{trial}: {what}")])?;
    }
    let ended = tasks.finish(&run).await;
    let history = run.history();
    let mut violations: Vec<_> = ended.err().into_iter().collect();
    if history.last > 0 {
        violations.extend(judge(&history).1);
    }
    if violations.is_empty() { Ok(reached) } else { Err(violations) }
}

/// Starts a member that will die at the failpoint, lets it come by, and starts it again without. Whether it died.
async fn carry_out(run: &Arc<Run>, group: &mut Group, trial: &Trial) -> bool {
    let leading = leader(run).await.map_or(0, |(number, _)| number);
    let who = (leading + 1) % group.numbers().len();
    group.kill(who);
    if trial.behind() {
        fall_behind(run).await;
    }
    if trial.name == "install_finish_at_start" {
        group.spawn(who, &[("FAILPOINTS", "install_after_marker=return(kill)")]);
        wait(group, who, REACH).await;
        group.kill(who);
    }
    group.spawn(who, &[("FAILPOINTS", &trial.setting())]);
    if trial.place == Place::Leader {
        lead(run, group, who).await;
    }
    let other = (who + 1) % group.numbers().len();
    if trial.other_behind() {
        group.kill(other);
        fall_behind(run).await;
        group.spawn(other, &[]);
    }
    let full = trial.need() == Need::FullDisk;
    if full {
        tokio::task::block_in_place(|| group.fill(who));
    }
    // History has to become old first.
    let patience = if trial.need() == Need::ShortHistory { 3 * REACH } else { REACH };
    let died = wait(group, who, patience).await;
    group.kill(who);
    if full {
        group.free(who);
    }
    group.spawn_missing();
    died
}

async fn wait(group: &mut Group, who: usize, patience: Duration) -> bool {
    let ended = tokio::task::block_in_place(|| group.wait_for_end(who, patience));
    ended.is_some_and(|status| status.signal() == Some(libc::SIGKILL))
}

/// Hands leadership to a member, unless it dies before.
async fn lead(run: &Run, group: &Group, who: usize) {
    let deadline = Instant::now() + REACH;
    while group.runs(who) && Instant::now() < deadline {
        match (leader(run).await, id_of(run, who).await) {
            (Some((leading, _)), _) if leading == who => return,
            (Some((leading, _)), Some(id)) => {
                let mut client = run.clients.of(leading);
                tokio::time::timeout(ATTEMPT, client.move_leader(id)).await.ok();
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until so much was written that who doesn't run now needs a snapshot.
async fn fall_behind(run: &Run) {
    let far = run.known() + i64::from(SNAPSHOT_COUNT) * 3 / 2;
    let deadline = Instant::now() + 3 * REACH;
    while run.known() < far && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
