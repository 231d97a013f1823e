//! Has the table's work done, each piece in a task of its own, so that nothing of it holds the loop up.

use std::time::Duration;

use client::backoff::{Backoff, Policy};

use super::{Answer, RunLoop};
use crate::agent::perform::Performer;
use crate::agent::table::Work;
use crate::pod::PodRef;
use crate::pod::effect::Effect;

impl RunLoop {
    /// Begins all of it.
    pub(super) fn carry_out(&mut self, work: Vec<Work>) {
        for work in work {
            match work {
                // In place, so that events keep their order.
                Work::Effect(pod, Effect::Record(note)) => self.performer.record(&pod, note),
                Work::Effect(pod, effect) => {
                    let performing = self.performer.clone().perform(pod, effect);
                    self.answers.spawn(async move {
                        performing.await.map_or(Answer::None, |(uid, event)| Answer::Pod(uid, event))
                    });
                }
                Work::Publish(publication) => {
                    let cause = self.table.cause(&publication.pod.uid);
                    self.publisher.publish(publication, cause);
                }
                Work::Save(pod) => {
                    // Not fsynced, so it costs no more than a copy to the page cache.
                    if let Err(error) = self.performer.checkpoints.save(&pod) {
                        tracing::error!(pod = %PodRef::of(&pod), %error, "record a pod");
                    }
                }
                Work::Follow(pod, references) => self.performer.references.follow(&pod, references),
                Work::Forget(pod) => {
                    self.answers.spawn(forget(self.performer.clone(), pod));
                }
                Work::Release(pod) => {
                    let runtime = self.performer.runtime.clone();
                    self.answers.spawn(async move {
                        if let Err(error) = runtime.stop_sandbox(&pod).await {
                            tracing::error!(%pod, error = %error.chain(), "stop the pod's sandbox");
                        }
                        Answer::None
                    });
                }
                Work::Kill(id) => {
                    let runtime = self.performer.runtime.clone();
                    self.answers.spawn(async move {
                        if let Err(error) = runtime.stop_container(&id, Duration::ZERO).await {
                            tracing::error!(container = %id, error = %error.chain(), "kill a stray container");
                        }
                        Answer::None
                    });
                }
            }
        }
    }
}

async fn forget(performer: Performer, pod: PodRef) -> Answer {
    performer.references.unfollow(&pod.uid);
    let mut backoff = Backoff::new(Policy::RETRY);
    // A runtime that is just being restarted refuses what it does a moment later, and nobody else would ask again.
    while let Err(error) = performer.runtime.remove_sandbox(&pod).await {
        tracing::error!(%pod, error = %error.chain(), "remove the pod's containers");
        tokio::time::sleep(backoff.failed(rand::random())).await;
    }
    let (volumes, uid) = (performer.volumes.clone(), pod.uid.clone());
    let removed = tokio::task::spawn_blocking(move || volumes.remove(&uid)).await;
    if let Err(error) = removed.map_err(std::io::Error::other).and_then(|result| result) {
        tracing::error!(%pod, %error, "remove the pod's volumes");
    }
    detach(&performer, &pod).await;
    if let Err(error) = performer.checkpoints.remove(&pod.uid) {
        tracing::error!(%pod, %error, "remove the pod's record");
    }
    Answer::Forgotten(pod.uid)
}

/// Takes the pod's network away, if it has one.
pub(super) async fn detach(performer: &Performer, pod: &PodRef) {
    if let Some(network) = &performer.network
        && let Err(error) = network.pods.detach(&pod.uid.0).await
    {
        tracing::error!(%pod, %error, "take the pod's network away");
    }
}
