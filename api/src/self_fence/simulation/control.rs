//! What the controllers do: they give pods up, and make others in their place.

use super::{Bug, Event, NODES, Pod, SECOND, Simulation};
use crate::self_fence::SILENT;

impl Simulation {
    pub(super) fn tell_controller(&mut self, node: usize) {
        let delay = self.delay();
        let at = (self.now + delay).max(self.controller.told[node] + 1);
        self.controller.told[node] = at;
        let lease = self.server.leases[node].clone();
        self.at(at, Event::Seen(node, lease));
    }

    pub(super) fn look(&mut self) {
        if let Some(pod) = self.server.pod.clone()
            && let Some((version, writes)) = self.controller.gives_up(pod.node, self.now, self.bug)
        {
            let delay = self.delay();
            self.after(delay, Event::Mark { node: pod.node, version, writes, uid: pod.uid });
        }
        let pause = self.random.below(2 * SECOND);
        self.after(pause, Event::Look);
    }

    pub(super) fn mark(&mut self, node: usize, version: &str, writes: bool, uid: u64) {
        let holds = self.server.leases[node].metadata.resource_version.as_deref() == Some(version);
        if !holds {
            return;
        }
        if writes && self.bug != Bug::DoesNotMark {
            self.server.write(node, version, Some(SILENT), None);
            self.tell_controller(node);
        }
        let delay = self.delay();
        self.after(delay, Event::Delete(uid));
    }

    pub(super) fn delete(&mut self, uid: u64) {
        if self.server.pod.as_ref().is_some_and(|pod| pod.uid == uid) {
            self.server.pod = None;
            self.replaced += 1;
            self.tell_agents();
            self.replace();
        }
    }

    pub(super) fn replace(&mut self) {
        match &self.server.pod {
            None => {
                self.uids += 1;
                let node = self.random.below(NODES as u64) as usize;
                self.server.pod = Some(Pod { uid: self.uids, node, failed: false });
                self.tell_agents();
            }
            // Its node has said that it will never run.
            Some(pod) if pod.failed => self.server.pod = None,
            Some(_) => {}
        }
    }
}
