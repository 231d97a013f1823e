//! How the loop ends: the pods end with the agent, or run on for the next one, or the node goes down.

use std::time::Duration;

use tokio::sync::mpsc;

use super::carrying_out::detach;
use super::{Answer, Event, RunLoop, Stop, answer, sleep_until};
use crate::agent::table::PodTable;
use crate::runtime::RuntimeEvent;

/// What remains after the grace of a shutdown until the loop gives up waiting for killed processes.
const KILL_MARGIN: Duration = Duration::from_secs(5);
/// How long a node that goes down tells of its pods' ends; the API server may be gone already.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

impl RunLoop {
    /// Ends the pods if so configured; otherwise everything runs on for the next agent.
    pub(super) async fn drain(&mut self, ends: &mut mpsc::Receiver<RuntimeEvent>) {
        let done = match self.stop {
            Stop::LeavePods => return,
            Stop::EndPods(grace) => {
                let work = self.table.stop(grace, self.clock.now());
                self.carry_out(work);
                self.drain_until(ends, grace + KILL_MARGIN, PodTable::is_quiet).await
            }
            Stop::Node { ordinary, critical } => self.go_down(ends, ordinary, critical).await,
        };
        if done {
            // They get their addresses again when they start again.
            for life in self.table.pods() {
                detach(&self.performer, life.pod_ref()).await;
            }
            if let Err(error) = self.performer.runtime.shut_down().await {
                tracing::error!(error = %error.chain(), "shut the runtime down");
            }
            return;
        }
        let left: Vec<String> = self
            .table
            .pods()
            .filter(|life| !life.is_quiet())
            .map(|life| life.pod_ref().to_string())
            .collect();
        tracing::warn!(pods = left.join(", "), "pods that did not end in time are left running");
    }

    /// The ordinary pods first: the critical ones serve them.
    async fn go_down(
        &mut self,
        ends: &mut mpsc::Receiver<RuntimeEvent>,
        ordinary: Duration,
        critical: Duration,
    ) -> bool {
        self.table.shut_down();
        self.tell_health(true);
        for (group, grace) in [(false, ordinary), (true, critical)] {
            let work = self.table.end_for_shutdown(group, grace, self.clock.now());
            self.carry_out(work);
            self.drain_until(ends, grace + KILL_MARGIN, |table| table.has_ended(group)).await;
        }
        self.publisher.flush(FLUSH_LIMIT).await;
        self.table.is_quiet()
    }

    /// Goes on with what concerns pods that end. Returns whether they have, in time.
    async fn drain_until(
        &mut self,
        ends: &mut mpsc::Receiver<RuntimeEvent>,
        limit: Duration,
        done: impl Fn(&PodTable) -> bool,
    ) -> bool {
        let all_ended = async {
            while !done(&self.table) {
                let event = self.next_while_draining(ends).await;
                let now = self.clock.now();
                let work = match event {
                    Event::Ended(RuntimeEvent { pod, id, exit }) => self.table.exited(&pod, id, exit, now),
                    Event::Answer(Answer::Pod(uid, event)) => self.table.answered(&uid, event, now),
                    Event::Timer => self.table.tick(now),
                    _ => Vec::new(),
                };
                self.carry_out(work);
            }
        };
        tokio::time::timeout(limit, all_ended).await.is_ok()
    }

    async fn next_while_draining(&mut self, ends: &mut mpsc::Receiver<RuntimeEvent>) -> Event {
        let wake = self.table.next_wake().map(|at| self.clock.instant(at));
        tokio::select! {
            Some(end) = ends.recv() => Event::Ended(end),
            Some(done) = self.answers.join_next(), if !self.answers.is_empty() => Event::Answer(answer(done)),
            () = sleep_until(wake) => Event::Timer,
        }
    }
}
