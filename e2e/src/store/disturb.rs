//! Carries out a plan on a group.

use std::time::Duration;

use etcd_client::Client;

use super::client::ATTEMPT;
use super::group::Group;
use super::plan::{Fault, Step, Target};
use super::workload::Run;

/// How long the group may take for what needs a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing at a time, as planned; at its end everything is whole again. Returns the members that gave up by
/// themselves, which no fault but a failed sync is a reason for.
pub async fn disturb(
    run: &Run,
    group: &mut Group,
    steps: &[Step],
    note: &(dyn Fn(String) + Sync),
) -> Vec<String> {
    let mut gave_up = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        note(format!("{number}: {step}"));
        let mut disturbance = Disturbance { run, group, hold: step.hold, note };
        disturbance.carry_out(&step.fault).await;
        gave_up.extend(disturbance.make_whole().map(|what| format!("{what}, after: {}", step.fault)));
        tokio::time::sleep(step.rest).await;
    }
    gave_up
}

struct Disturbance<'a> {
    run: &'a Run,
    group: &'a mut Group,
    hold: Duration,
    note: &'a (dyn Fn(String) + Sync),
}

impl Disturbance<'_> {
    async fn carry_out(&mut self, fault: &Fault) {
        match *fault {
            Fault::Kill(who) => {
                let who = self.find(who).await;
                self.group.kill(who);
                self.hold().await;
            }
            Fault::PowerOff => {
                self.group.kill_all();
                self.hold().await;
            }
            Fault::Pause(who) => {
                let who = self.find(who).await;
                self.group.signal(who, libc::SIGSTOP);
                self.hold().await;
                self.group.signal(who, libc::SIGCONT);
            }
            Fault::Isolate(who) => {
                let who = self.find(who).await;
                self.cut(&[self.from(who), self.to(who)].concat()).await;
            }
            Fault::Mute(who) => {
                let who = self.find(who).await;
                self.cut(&self.from(who)).await;
            }
            Fault::Deafen(who) => {
                let who = self.find(who).await;
                self.cut(&self.to(who)).await;
            }
            Fault::Bridge(one, other) => self.cut(&[(one, other), (other, one)]).await,
            Fault::Unplug(who) => {
                let who = self.find(who).await;
                self.group.switch.unplug(who);
                self.hold().await;
                self.group.switch.plug(who);
            }
            Fault::FailSync(who) => {
                let who = self.find(who).await;
                let ended = tokio::task::block_in_place(|| self.group.fail_sync(who));
                assert!(ended, "m{} outlived a sync that failed with EIO", who + 1);
            }
            Fault::KillInWrite(who, nth) => {
                self.kill_at(who, "write,pwrite64,writev,pwritev", nth).await;
            }
            Fault::KillInSync(who, nth) => self.kill_at(who, "fdatasync,fsync", nth).await,
            Fault::FillDisk(who) => {
                let who = self.find(who).await;
                self.fill(&[who]).await;
            }
            Fault::FillAllDisks => self.fill(&self.group.numbers().collect::<Vec<_>>()).await,
            Fault::MoveLeader => self.move_leader().await,
            Fault::Replace(who) => {
                let who = self.find(who).await;
                self.replace(who).await;
            }
        }
    }

    /// Whoever was killed, by the fault or by its own decision, comes back.
    fn make_whole(&mut self) -> impl Iterator<Item = String> + use<> {
        let gave_up: Vec<_> = self
            .group
            .numbers()
            .filter_map(|number| {
                let status = self.group.ended(number)?;
                Some(format!("m{} ended by itself ({status})", number + 1))
            })
            .collect();
        gave_up.iter().for_each(|what| (self.note)(what.clone()));
        self.group.spawn_missing();
        gave_up.into_iter()
    }

    async fn hold(&self) {
        tokio::time::sleep(self.hold).await;
    }

    async fn find(&self, target: Target) -> usize {
        let leader = || async { leader(self.run).await.map_or(0, |(number, _)| number) };
        match target {
            Target::Member(number) => number,
            Target::Leader => leader().await,
            Target::Follower => (leader().await + 1) % self.group.numbers().len(),
        }
    }

    /// From this member to each other one.
    fn from(&self, who: usize) -> Vec<(usize, usize)> {
        self.group.numbers().filter(|other| *other != who).map(|other| (who, other)).collect()
    }

    /// To this member from each other one.
    fn to(&self, who: usize) -> Vec<(usize, usize)> {
        self.from(who).into_iter().map(|(who, other)| (other, who)).collect()
    }

    async fn cut(&self, ways: &[(usize, usize)]) {
        ways.iter().for_each(|(from, to)| self.group.switch.cut(*from, *to));
        self.hold().await;
        ways.iter().for_each(|(from, to)| self.group.switch.mend(*from, *to));
    }

    async fn kill_at(&mut self, who: Target, calls: &str, nth: u32) {
        let who = self.find(who).await;
        if !tokio::task::block_in_place(|| self.group.kill_at(who, calls, nth)) {
            (self.note)(format!("m{} made no such call {nth}, and was killed at another place", who + 1));
        }
    }

    async fn fill(&self, members: &[usize]) {
        tokio::task::block_in_place(|| members.iter().for_each(|number| self.group.fill(*number)));
        self.hold().await;
        members.iter().for_each(|number| self.group.free(*number));
    }

    async fn move_leader(&self) {
        let Some((number, id)) = leader(self.run).await else { return };
        let ids = tokio::time::timeout(ATTEMPT, member_ids(self.run.clients.of(number))).await;
        let other = ids.ok().flatten().and_then(|ids| ids.into_iter().find(|other| *other != id));
        if let Some(other) = other {
            let mut client = self.run.clients.of(number);
            let moved = tokio::time::timeout(ATTEMPT, client.move_leader(other)).await;
            (self.note)(format!("moved to {other:x}: {}", moved.is_ok_and(|moved| moved.is_ok())));
        }
    }

    /// Refused changes (a member is unhealthy just now) are asked for again, as an operator would.
    async fn replace(&mut self, who: usize) {
        let other = (who + 1) % self.group.numbers().len();
        let mut client = self.run.clients.of(other);
        let Some(id) = id_of(self.run, who).await else {
            (self.note)(format!("m{} doesn't say its id: not replaced", who + 1));
            return;
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout(ATTEMPT, client.member_remove(id)).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) if error.to_string().contains("not found") => break,
                other if tokio::time::Instant::now() > deadline => panic!("can't remove {id:x}: {other:?}"),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        self.hold().await;
        let (_, url) = self.group.wipe(who);
        loop {
            match tokio::time::timeout(ATTEMPT, client.member_add([url.as_str()], None)).await {
                Ok(Ok(_)) => break,
                // The answer to an earlier attempt was lost.
                Ok(Err(error)) if error.to_string().contains("exists") => break,
                other if tokio::time::Instant::now() > deadline => panic!("can't add {url}: {other:?}"),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        self.group.admit();
    }
}

/// The id of a member that serves.
pub async fn id_of(run: &Run, who: usize) -> Option<u64> {
    let mut client = run.clients.of(who);
    let status = tokio::time::timeout(ATTEMPT, client.status()).await.ok()?.ok()?;
    Some(status.header()?.member_id())
}

async fn member_ids(mut client: Client) -> Option<Vec<u64>> {
    let list = client.member_list().await.ok()?;
    Some(list.members().iter().map(etcd_client::Member::id).collect())
}

/// The member that says it leads, at the greatest term that anybody knows: its number and its id.
pub async fn leader(run: &Run) -> Option<(usize, u64)> {
    leader_and_term(run).await.map(|(_, number, id)| (number, id))
}

/// As [`leader`], with its term before.
pub async fn leader_and_term(run: &Run) -> Option<(u64, usize, u64)> {
    let mut found = None;
    for number in 0..run.clients.count() {
        let mut client = run.clients.of(number);
        let status = tokio::time::timeout(ATTEMPT / 4, client.status()).await;
        let Ok(Ok(status)) = status else { continue };
        let id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
        if status.leader() == id && id != 0 {
            found = found.max(Some((status.raft_term(), number, id)));
        }
    }
    found
}
