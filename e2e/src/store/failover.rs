//! How long nobody can write after the leader is killed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::Clients;
use super::disturb::leader_and_term;
use super::group::{Group, Program, Shape};
use super::history::{Change, Reply, Request};
use super::oracle::judge;
use super::recovery::recover;
use super::schedule::{Tasks, inside};
use super::workload::Run;

/// A new write is sent to each surviving member so often, whether earlier ones are answered or not.
const PROBE: Duration = Duration::from_millis(5);

/// Times from a leader's death to the next acknowledged write.
#[derive(Clone, Debug)]
pub struct Gaps(Vec<Duration>);

impl Gaps {
    /// The shortest time that is not exceeded by `share` (0 to 1) of all.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: Duration = Duration::from_millis(50);
        let bucket = |gap: &Duration| gap.as_millis() / WIDTH.as_millis();
        let last = self.0.iter().map(bucket).max().unwrap_or(0);
        for number in 0..=last {
            let count = self.0.iter().filter(|gap| bucket(gap) == number).count();
            let from = number * WIDTH.as_millis();
            writeln!(f, "{from:>5} to {:>5} ms {count:>4} {}", from + WIDTH.as_millis(), "#".repeat(count))?;
        }
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| self.quantile(share));
        write!(f, "{} leader kills: p50 {p50:.0?}, p90 {p90:.0?}, p99 {p99:.0?}, max {max:.0?}", self.0.len())
    }
}

/// How a leader dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process alone: its host closes its connections, which the others notice.
    Process,
    /// The host with it: the others hear nothing, and have to find out.
    Host,
}

/// Kills the leader of three members under load so often, each time when all members serve, and judges what the
/// clients were told.
///
/// # Errors
/// Every promise that was broken, in words.
pub fn kill_leaders(program: Program, death: Death, kills: usize) -> Result<Gaps, Vec<String>> {
    let mut group = Group::start(Shape::plain(program, 3));
    let clients = group.switch.clients.handle().expect("a descriptor");
    let verdict = inside(&clients, judged(&mut group, death, kills));
    if verdict.is_err() {
        group.explain();
    }
    verdict
}

async fn judged(group: &mut Group, death: Death, kills: usize) -> Result<Gaps, Vec<String>> {
    let run = Arc::new(Run::new(Clients::connect(&group.endpoints()).await, 1));
    recover(&run).await.map_err(|what| vec![what])?;
    let tasks = Tasks::spawn(&run);
    let mut probes = JoinSet::new();
    let mut gaps = Vec::new();
    let mut broken = Ok(());
    while gaps.len() < kills && broken.is_ok() {
        let Some((term, who, _)) = leader_and_term(&run).await else { continue };
        let killed = Instant::now();
        if death == Death::Host {
            group.switch.unplug(who);
        }
        group.kill(who);
        let written = first_write(&run, who, &mut probes).await;
        match leader_and_term(&run).await {
            Some((next, other, _)) if next > term && other != who => gaps.push(written - killed),
            // It had lost its leadership just before: nothing was measured.
            found => println!("m{} led term {term} no more: {found:?}", who + 1),
        }
        if death == Death::Host {
            group.switch.plug(who);
        }
        group.spawn_missing();
        // Whatever was sent is answered and written down, before the next kill and before anybody is judged.
        while probes.join_next().await.is_some() {}
        broken = recover(&run).await;
    }
    let ended = broken.and(tasks.finish(&run).await);
    let history = run.history();
    let mut violations = if history.last > 0 { judge(&history).1 } else { Vec::new() };
    violations.extend(ended.err());
    if violations.is_empty() { Ok(Gaps(gaps)) } else { Err(violations) }
}

/// When the first write that was sent from now on is acknowledged, through any member but the dead one.
async fn first_write(run: &Arc<Run>, dead: usize, probes: &mut JoinSet<Option<Instant>>) -> Instant {
    let mut tick = tokio::time::interval(PROBE);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                for member in (0..run.clients.count()).filter(|member| *member != dead) {
                    let run = run.clone();
                    probes.spawn(async move { probe(&run, member).await });
                }
            }
            Some(done) = probes.join_next() => {
                if let Ok(Some(at)) = done {
                    return at;
                }
            }
        }
    }
}

/// When the write was acknowledged, if it was.
async fn probe(run: &Run, member: usize) -> Option<Instant> {
    let value = format!("probe-{}", run.unique());
    let change = Change::Put { key: "probe".to_owned(), value, lease: 0 };
    let call = run.clients.call(4000, member, Request::Write { guard: None, changes: vec![change] }).await;
    let at = matches!(call.reply(), Some(Reply::Wrote { .. })).then_some(call.returned);
    run.record(call);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_gaps() {
        let gaps = Gaps((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(gaps.quantile(0.5), Duration::from_millis(50));
        assert_eq!(gaps.quantile(0.99), Duration::from_millis(99));
        assert_eq!(gaps.quantile(1.0), Duration::from_millis(100));
        assert!(gaps.to_string().contains("    0 to    50 ms   49 ####"), "{gaps}");
    }
}
