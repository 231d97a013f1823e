//! The leader is killed while a client writes: nothing acknowledged may be lost.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::cluster::DemoCluster;
use super::timeline::{Check, Timeline, chapter};
use super::writer::{self, Acknowledged};
use crate::failure::Failure;
use crate::text::{count, seconds};
use crate::up::chaos_socket::Order;

/// Writes before the leader is killed, and again after.
const WRITES: u64 = 150;
/// The next write must be acknowledged this soon.
const LIMIT: Duration = Duration::from_secs(1);
/// The demo gives up after this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the leader in the middle of writes and reads everything back.
pub async fn kill_leader(demo: &DemoCluster) -> Result<Vec<Check>, Failure> {
    chapter("A member is killed: the Raft leader, while a client writes");
    let cluster = demo.client().await?;
    let (stop, stopping) = watch::channel(false);
    let (counting, count) = watch::channel(0);
    let writing = writer::write(&cluster, stopping, counting);
    let (acknowledged, scene) = tokio::join!(writing, async {
        let scene = play(demo, count).await;
        stop.send_replace(true);
        scene
    });
    let (killed, leader, timeline) = scene?;
    judge(demo, &leader, killed, timeline, acknowledged).await
}

async fn play(
    demo: &DemoCluster,
    mut count: watch::Receiver<u64>,
) -> Result<(Instant, String, Timeline), Failure> {
    reached(&mut count, WRITES).await?;
    let leader = demo.leader().await?;
    let timeline = Timeline::start();
    let killed = Instant::now();
    demo.order(Order::Kill { child: leader.clone() }).await?;
    let before = *count.borrow();
    timeline.line(format!("{leader}, the leader, is killed (SIGKILL) after {before} acknowledged writes"));
    reached(&mut count, before + 1).await?;
    timeline.line("the next write is acknowledged");
    reached(&mut count, before + WRITES).await?;
    timeline
        .line(format!("{} writes acknowledged by the two members that are left", *count.borrow() - before));
    Ok((killed, leader, timeline))
}

async fn reached(count: &mut watch::Receiver<u64>, goal: u64) -> Result<(), Failure> {
    let waited = timeout(PATIENCE, count.wait_for(|count| *count >= goal)).await.map(|seen| seen.is_ok());
    match waited {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::NotHeld("the writer ended early".into())),
        Err(_) => Err(Failure::Timeout(format!(
            "{} writes were acknowledged within {} s, {goal} were expected",
            *count.borrow(),
            PATIENCE.as_secs()
        ))),
    }
}

async fn judge(
    demo: &DemoCluster,
    leader: &str,
    killed: Instant,
    timeline: Timeline,
    acknowledged: Acknowledged,
) -> Result<Vec<Check>, Failure> {
    // A client of its own: what it reads can't come from the writer's connection.
    let stored = writer::stored(&demo.client().await?).await?;
    let lost = acknowledged.lost(&stored);
    let total = acknowledged.writes.len();
    timeline.line(format!("{} read back: {} lost", count(total, "acknowledged write"), lost.len()));
    let successor = demo.leader().await?;
    timeline.line(format!("{successor} leads now; {leader} is started again and catches up"));
    demo.order(Order::Resume { child: leader.to_owned() }).await?;
    let pause = acknowledged.first_after(killed).map_or(PATIENCE, |at| at - killed);
    let detail = format!(
        "{} (longest gap {}, {})",
        seconds(pause),
        seconds(acknowledged.longest_gap()),
        count(acknowledged.failed_attempts as usize, "failed attempt")
    );
    let promise = format!("leader killed → next write acknowledged within {}", seconds(LIMIT));
    Ok(vec![
        Check::that(&promise, pause <= LIMIT, detail),
        Check::that(
            "no acknowledged write is lost",
            lost.is_empty(),
            format!("{} of {total} lost", lost.len()),
        ),
        Check::that("another member leads", successor != leader, format!("{leader} → {successor}")),
    ])
}
