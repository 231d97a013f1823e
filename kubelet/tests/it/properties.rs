//! What no row of events may do to a pod's life.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubelet::Backoff;
use kubelet::pod::container::State;
use kubelet::pod::effect::{
    Effect, Hook, ImageFailure, NeededImage, PodEvent, ProbeKind, ProbeOutcome, StartFailure,
};
use kubelet::pod::life::{PodLife, Settings};
use kubelet::pod::{ContainerId, ContainerName};
use kubelet::runtime::{Exit, ImageUse};
use proptest::prelude::*;

/// A move of the world; numbers choose among what exists.
#[derive(Clone, Debug)]
enum Move {
    Sandbox(bool),
    Started(usize),
    Failed(usize, u8),
    Exited(usize, i32),
    Stray(i32),
    Probed(usize, u8, bool),
    Hook(usize, bool, bool),
    References,
    Delete(i64),
    Removed,
    AgentStopping,
    Pass(u16),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => any::<bool>().prop_map(Move::Sandbox),
        6 => (0..4usize).prop_map(Move::Started),
        2 => (0..4usize, 0..4u8).prop_map(|(n, step)| Move::Failed(n, step)),
        6 => (0..4usize, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(n, code)| Move::Exited(n, code)),
        1 => (0..3i32).prop_map(Move::Stray),
        4 => (0..4usize, 0..3u8, any::<bool>()).prop_map(|(n, kind, ok)| Move::Probed(n, kind, ok)),
        2 => (0..4usize, any::<bool>(), any::<bool>()).prop_map(|(n, hook, ok)| Move::Hook(n, hook, ok)),
        1 => Just(Move::References),
        1 => (0..40i64).prop_map(Move::Delete),
        1 => Just(Move::Removed),
        1 => Just(Move::AgentStopping),
        6 => (0..700u16).prop_map(Move::Pass),
    ]
}

fn pod(policy: &str) -> Pod {
    let yaml = format!(
        "
metadata: {{name: web, namespace: default, uid: u1}}
spec:
  restartPolicy: {policy}
  initContainers:
  - {{name: init, image: i}}
  - {{name: side, image: s, restartPolicy: Always}}
  containers:
  - name: main
    image: app
    startupProbe: {{tcpSocket: {{port: 1}}, failureThreshold: 2}}
    livenessProbe: {{tcpSocket: {{port: 1}}, failureThreshold: 2}}
    readinessProbe: {{tcpSocket: {{port: 1}}}}
    lifecycle: {{postStart: {{exec: {{command: [a]}}}}, preStop: {{exec: {{command: [b]}}}}}}
  - {{name: other, image: app}}
"
    );
    serde_yaml::from_str(&yaml).expect("a pod")
}

struct World {
    life: PodLife,
    now: Timestamp,
    runs: u32,
}

impl World {
    fn name(&self, n: usize) -> ContainerName {
        self.life.containers()[n].name.clone()
    }

    fn run(&self, n: usize) -> Option<ContainerId> {
        self.life.containers()[n].run().map(|run| run.id.clone())
    }

    fn is_starting(&self, n: usize) -> bool {
        matches!(self.life.containers()[n].state, State::Starting(_))
    }

    /// What this move means here and now; `None` if it can't happen.
    fn event(&mut self, chosen: &Move) -> Option<PodEvent> {
        let exit = |code: &i32, now| Exit::with_code(*code, now, now);
        Some(match chosen {
            Move::Sandbox(true) => PodEvent::SandboxReady { ip: None },
            Move::Sandbox(false) if !self.life.is_preparing() => return None,
            Move::Sandbox(false) => PodEvent::SandboxFailed { message: "no".to_owned() },
            Move::Started(n) | Move::Failed(n, _) if !self.is_starting(*n) => return None,
            Move::Started(n) => {
                self.runs += 1;
                let id = ContainerId(format!("r{}", self.runs));
                let image = ImageUse::Present(None);
                let mounted = BTreeMap::new();
                PodEvent::Started { container: self.name(*n), id, at: self.now, image, mounted }
            }
            Move::Failed(n, step) => {
                self.runs += 1;
                let image = (*step != 1).then_some(ImageUse::Present(None));
                PodEvent::StartFailed { container: self.name(*n), failure: failure(*step, self.runs), image }
            }
            Move::Exited(n, code) => PodEvent::Exited { id: self.run(*n)?, exit: exit(code, self.now) },
            Move::Stray(n) => {
                PodEvent::Exited { id: ContainerId(format!("stray{n}")), exit: exit(n, self.now) }
            }
            Move::Probed(n, kind, ok) => {
                let kinds = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
                let failure = || ProbeOutcome::Failure("no".to_owned());
                let outcome = if *ok { ProbeOutcome::Success } else { failure() };
                PodEvent::Probed { id: self.run(*n)?, kind: kinds[usize::from(*kind)], outcome }
            }
            Move::Hook(n, post, ok) => {
                let hook = if *post { Hook::PostStart } else { Hook::PreStop };
                let outcome = if *ok { Ok(()) } else { Err("no".to_owned()) };
                PodEvent::HookDone { id: self.run(*n)?, hook, outcome }
            }
            Move::References => PodEvent::ReferencesChanged,
            Move::Delete(grace) => {
                let mut pod = self.life.pod().clone();
                pod.metadata.deletion_timestamp = Some(Time(self.now));
                pod.metadata.deletion_grace_period_seconds = Some(*grace);
                PodEvent::Applied(Box::new(pod))
            }
            Move::Removed => PodEvent::Removed,
            Move::AgentStopping => PodEvent::AgentStopping { grace: std::time::Duration::from_secs(5) },
            Move::Pass(seconds) => {
                self.now =
                    self.now.checked_add(SignedDuration::from_secs(i64::from(*seconds))).expect("small");
                PodEvent::Tick
            }
        })
    }
}

fn failure(step: u8, n: u32) -> StartFailure {
    match step {
        0 => StartFailure::Config("no".to_owned()),
        1 => StartFailure::Image(
            NeededImage { name: "i".to_owned(), of_volume: n.is_multiple_of(2) },
            ImageFailure::Pull("no".to_owned()),
        ),
        2 => StartFailure::Create("no".to_owned()),
        _ => StartFailure::Run { id: ContainerId(format!("r{n}")), message: "no".to_owned() },
    }
}

fn restarts(life: &PodLife) -> Vec<u32> {
    life.containers().iter().map(|c| c.restarts()).collect()
}

/// Checks one step: what was, what is, what is asked for.
fn check(
    before: &PodLife,
    phase: &str,
    world: &mut World,
    effects: &[Effect],
) -> Result<String, TestCaseError> {
    let now = world.now;
    let status = world.life.status(now);
    let new_phase = status.phase.clone().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        prop_assert_eq!(phase, new_phase.as_str(), "a terminal phase is left");
    }
    for (old, new) in restarts(before).into_iter().zip(restarts(&world.life)) {
        prop_assert!(new >= old, "restarts decreased from {} to {}", old, new);
    }
    let ending = before.pod().metadata.deletion_timestamp.is_some() || before.is_over();
    let starts = effects.iter().any(|effect| matches!(effect, Effect::StartContainer { .. }));
    prop_assert!(!(ending && starts), "a container is started in a pod that ends");
    if let Some(wake) = world.life.next_wake(now) {
        prop_assert!(wake > now, "a wake-up lies in the past");
    }
    if world.life.may_be_deleted() || world.life.is_forgotten() {
        prop_assert!(world.life.is_quiet(), "the pod is closed while a process runs");
    }
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let all_run = world.life.containers().iter().skip(1).all(|c| c.run().is_some());
    prop_assert!(!ready || all_run, "ready without all containers running");
    Ok(new_phase)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_events_keep_the_promises(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        moves in prop::collection::vec(moves(), 1..120),
    ) {
        let settings = Settings {
            backoff: Backoff::default(),
            host_ip: "10.0.0.1".to_owned(),
            runtime: "amoeba".to_owned(),
        };
        let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("time");
        let life = PodLife::new(Box::new(pod(policy)), Arc::new(settings), now);
        let mut world = World { life, now, runs: 0 };
        world.life.step(PodEvent::Tick, now);
        let mut phase = String::new();
        for chosen in &moves {
            let Some(event) = world.event(chosen) else { continue };
            let before = world.life.clone();
            let now = world.now;
            let effects = world.life.step(event, now);
            phase = check(&before, &phase, &mut world, &effects)?;
        }
    }

    /// However a life went: once deleted, and with every process answering, it comes to its end.
    #[test]
    fn a_deleted_pod_always_ends(moves in prop::collection::vec(moves(), 1..60)) {
        let settings = Settings {
            backoff: Backoff::default(),
            host_ip: "10.0.0.1".to_owned(),
            runtime: "amoeba".to_owned(),
        };
        let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("time");
        let life = PodLife::new(Box::new(pod("Always")), Arc::new(settings), now);
        let mut world = World { life, now, runs: 0 };
        world.life.step(PodEvent::Tick, now);
        for chosen in &moves {
            let Some(event) = world.event(chosen) else { continue };
            let now = world.now;
            world.life.step(event, now);
        }
        for chosen in ending() {
            let Some(event) = world.event(&chosen) else { continue };
            let now = world.now;
            world.life.step(event, now);
        }
        prop_assert!(world.life.may_be_deleted() || world.life.is_forgotten());
    }
}

/// A deletion, then a world in which everything that was asked for happens.
fn ending() -> Vec<Move> {
    let mut moves = vec![Move::Delete(1), Move::Sandbox(true)];
    for _ in 0..6 {
        moves.push(Move::Pass(60));
        moves.extend((0..4).map(Move::Started));
        moves.extend((0..4).map(|n| Move::Exited(n, 0)));
    }
    moves
}
