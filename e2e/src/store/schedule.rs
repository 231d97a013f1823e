//! One schedule: a group, a workload, the faults of a seed, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::Clients;
use super::disturb::disturb;
use super::group::{Group, Program, Shape};
use super::history::{History, Outcome};
use super::namespace::Namespace;
use super::oracle::{Counts, judge};
use super::plan::{Step, Theme, plan};
use super::recovery::{RECOVERY, leases_end, recover, same_hash, settle};
use super::watcher;
use super::workload::{Run, client, compactor, lease_owner, maintainer};

const MEMBERS: usize = 3;
/// Of each member, where full disks are among the faults: room for the store with all its preallocated files.
const DISK_MIB: u64 = 192;
const CLIENTS: u64 = 6;
const LEASE_OWNERS: u64 = 3;
const BROWSERS: u64 = 2;
/// Between two calls of a client.
const PACE: Duration = Duration::from_millis(8);

/// Runs the schedule of a seed; its plan and what happens are printed.
///
/// # Errors
/// Every promise that was broken, in words; the members' logs are on standard error then.
pub fn run(program: Program, seed: u64, length: Duration) -> Result<Counts, Vec<String>> {
    let steps = plan(seed, MEMBERS, length);
    println!("replay: {}", replay(program, seed, length));
    steps.iter().enumerate().for_each(|(number, step)| println!("plan {number}: {step}"));
    let disk_mib = (Theme::of(seed) == Theme::Disks).then_some(DISK_MIB);
    let mut group = Group::start(Shape { disk_mib, ..Shape::plain(program, MEMBERS) });
    let clients = group.switch.clients.handle().expect("a descriptor");
    let verdict = inside(&clients, judged(&mut group, seed, &steps));
    if verdict.is_err() {
        group.explain();
    }
    verdict
}

async fn judged(group: &mut Group, seed: u64, steps: &[Step]) -> Result<Counts, Vec<String>> {
    let began = Instant::now();
    let note = |text: String| println!("{:>7.3} {text}", began.elapsed().as_secs_f64());
    let run = Arc::new(Run::new(Clients::connect(&group.endpoints()).await, seed));
    recover(&run).await.map_err(|what| vec![what])?;
    let tasks = Tasks::spawn(&run);
    let gave_up = disturb(&run, group, steps, &note).await;
    let ended = tasks.finish(&run).await;
    let history = run.history();
    note(format!("unanswered and why: {:?}", reasons(&history)));
    let mut violations: Vec<_> = ended.err().into_iter().collect();
    // etcd ends on a full disk; ours has to serve what needs no space, and to go on by itself.
    if group.program() == Program::Amoeba {
        violations.extend(gave_up);
    }
    // Without an end that everybody has seen there is no history to judge by.
    let mut counts = Counts::default();
    if history.last > 0 {
        let (counted, broken) = judge(&history);
        counts = counted;
        violations.extend(broken);
    }
    note(format!("{counts:?}, {} violations", violations.len()));
    if violations.is_empty() { Ok(counts) } else { Err(violations) }
}

/// Why calls and watches had no answer, and how often.
fn reasons(history: &History) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for call in &history.calls {
        if let Outcome::Unknown(why) | Outcome::Failed(why) = &call.outcome {
            *reasons.entry(why.chars().take(120).collect()).or_default() += 1;
        }
    }
    for why in history.watches.iter().filter_map(|watch| watch.end.as_ref()) {
        *reasons.entry(format!("watch: {}", why.chars().take(120).collect::<String>())).or_default() += 1;
    }
    reasons
}

/// Does asynchronous work on threads that live in this namespace.
pub fn inside<T: Send>(namespace: &Namespace, work: impl Future<Output = T> + Send) -> T {
    let enter =
        |namespace: &Namespace| namespace.enter().expect("a namespace of this process can be entered");
    let (here, workers) =
        (namespace.handle().expect("a descriptor"), namespace.handle().expect("a descriptor"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(&here);
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(2).enable_all().on_thread_start(move || enter(&workers));
            runtime.build().expect("a runtime").block_on(work)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Everything that runs beside the faults.
pub struct Tasks {
    /// They end when the run stops.
    workload: JoinSet<()>,
    /// They end when they have seen the last revision.
    collectors: JoinSet<()>,
}

impl Tasks {
    /// Clients, owners of leases, watchers and a compactor.
    pub fn spawn(run: &Arc<Run>) -> Self {
        let mut tasks = Self { workload: JoinSet::new(), collectors: JoinSet::new() };
        for member in 0..run.clients.count() {
            let run = run.clone();
            tasks.collectors.spawn(async move { watcher::collect(&run, member).await });
        }
        for number in 0..CLIENTS {
            let run = run.clone();
            tasks.workload.spawn(async move { client(&run, number, PACE).await });
        }
        for number in 0..LEASE_OWNERS {
            let run = run.clone();
            tasks.workload.spawn(async move { lease_owner(&run, number).await });
        }
        for number in 0..BROWSERS {
            let run = run.clone();
            tasks.workload.spawn(async move { watcher::browse(&run, number).await });
        }
        let run = run.clone();
        tasks.workload.spawn(async move { compactor(&run).await });
        tasks
    }

    /// Also takes backups.
    pub fn maintain(&mut self, run: &Arc<Run>) {
        let run = run.clone();
        self.workload.spawn(async move { maintainer(&run).await });
    }

    /// The faults are over: all members serve again, leases end, watches catch up, and all members agree.
    pub async fn finish(mut self, run: &Run) -> Result<(), String> {
        recover(run).await?;
        run.stop();
        while let Some(ended) = self.workload.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        leases_end(run).await?;
        let last = settle(run).await?;
        run.last.store(last, Ordering::SeqCst);
        let collected = async { while self.collectors.join_next().await.is_some() {} };
        if tokio::time::timeout(RECOVERY, collected).await.is_err() {
            let seen: Vec<_> = run.collected.iter().map(|seen| seen.load(Ordering::SeqCst)).collect();
            return Err(format!(
                "watches have seen {seen:?} of {last} revisions {RECOVERY:?} after all faults"
            ));
        }
        same_hash(run, last).await
    }
}

fn replay(program: Program, seed: u64, length: Duration) -> String {
    let program = format!("{program:?}").to_lowercase();
    format!(
        "STORE_UNDER_TEST={program} FAULT_SEED={seed} FAULT_SECONDS={} cargo test -p e2e --test store_faults -- \
         --nocapture",
        length.as_secs()
    )
}
