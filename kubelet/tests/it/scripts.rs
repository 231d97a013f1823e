//! Conversations with a pod's life: `testdata/life/*.txt`, rewritten by `UPDATE=1`.
//!
//! A script is a row of commands, each followed by `----` and what it led to: effects with their time
//! since the start, then the status where it changed. `pod` and `apply` take YAML.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubelet::Backoff;
use kubelet::pod::effect::{
    Effect, Hook, ImageFailure, NeededImage, PodEvent, ProbeKind, ProbeOutcome, StartFailure,
};
use kubelet::pod::life::{PodLife, Settings, Verdict};
use kubelet::pod::resize::{Decision, Shortage};
use kubelet::pod::{ContainerId, ContainerName};
use kubelet::runtime::{Exit, FoundContainer, FoundState, ImageUse};

struct Conversation {
    life: Option<PodLife>,
    now: Timestamp,
    shown: String,
    out: String,
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("time")
}

fn settings() -> Arc<Settings> {
    let runtime = "amoeba".to_owned();
    Arc::new(Settings { backoff: Backoff::default(), host_ip: "10.0.0.1".to_owned(), runtime })
}

fn parse_pod(yaml: &str) -> Box<Pod> {
    let mut pod: Pod = serde_yaml::from_str(yaml).expect("a pod in YAML");
    let meta = &mut pod.metadata;
    meta.name.get_or_insert_with(|| "web".to_owned());
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid.get_or_insert_with(|| "u1".to_owned());
    meta.generation.get_or_insert(1);
    Box::new(pod)
}

impl Conversation {
    fn new() -> Self {
        Self { life: None, now: start(), shown: String::new(), out: String::new() }
    }

    fn command(&mut self, line: &str, body: &str) -> String {
        self.out.clear();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["pod"] => {
                self.life = Some(PodLife::new(parse_pod(body), settings(), self.now));
                self.step(PodEvent::Tick);
            }
            ["restore", found @ ..] => self.restore(found),
            ["advance", time] => self.advance(seconds(time)),
            ["status"] => self.print_status(),
            ["apply"] => {
                let pod = parse_pod(body);
                self.step(PodEvent::Applied(pod));
            }
            ["delete", grace] => self.delete(grace.parse().expect("seconds")),
            _ => {
                let event = self.event(&words);
                self.step(event);
            }
        }
        if line != "status" {
            self.show();
        }
        std::mem::take(&mut self.out)
    }

    fn life(&mut self) -> &mut PodLife {
        self.life.as_mut().expect("the script begins with `pod`")
    }

    fn event(&mut self, words: &[&str]) -> PodEvent {
        match words {
            ["sandbox", "ready"] => PodEvent::SandboxReady { ip: None },
            ["sandbox", "failed", rest @ ..] => PodEvent::SandboxFailed { message: rest.join(" ") },
            ["started", name, id, mounted @ ..] => {
                let image = ImageUse::Present(None);
                let mounted = mounted.iter().map(|pair| pair.split_once('=').expect("VOLUME=IMAGE"));
                let mounted = mounted.map(|(volume, id)| (volume.to_owned(), id.to_owned())).collect();
                PodEvent::Started { container: container(name), id: run(id), at: self.now, image, mounted }
            }
            ["failed", name, "image", rest @ ..] => {
                let spec = self.life().pod().spec.clone().expect("a spec");
                let spec = spec.containers.into_iter().find(|c| c.name == *name).expect("a container");
                let needed = NeededImage { name: spec.image.unwrap_or_default(), of_volume: false };
                missing(name, needed, ImageFailure::Pull(rest.join(" ")))
            }
            ["failed", name, "volume-image", image, why, rest @ ..] => {
                let needed = NeededImage { name: (*image).to_owned(), of_volume: true };
                missing(name, needed, image_failure(why, rest.join(" ")))
            }
            ["failed", name, step, rest @ ..] => {
                let image = Some(ImageUse::Present(None));
                PodEvent::StartFailed { container: container(name), failure: failure(step, rest), image }
            }
            ["exited", id, code] => PodEvent::Exited { id: run(id), exit: self.exit(code) },
            ["probed", id, kind, rest @ ..] => {
                PodEvent::Probed { id: run(id), kind: probe_kind(kind), outcome: probed(rest) }
            }
            ["hook", id, hook, rest @ ..] => {
                let hook = if *hook == "postStart" { Hook::PostStart } else { Hook::PreStop };
                PodEvent::HookDone { id: run(id), hook, outcome: outcome(rest) }
            }
            ["resize", decision, rest @ ..] => PodEvent::ResizeDecided(decided(decision, rest)),
            ["resized", id, rest @ ..] => PodEvent::Resized { id: run(id), outcome: outcome(rest) },
            ["references", "changed"] => PodEvent::ReferencesChanged,
            ["removed"] => PodEvent::Removed,
            ["evicted", grace, message @ ..] => PodEvent::Evicted {
                verdict: Verdict::disruption("Evicted", message.join(" ")),
                grace: seconds(grace),
            },
            ["agent", "stopping", grace] => PodEvent::AgentStopping { grace: seconds(grace) },
            _ => panic!("unknown command: {words:?}"),
        }
    }

    fn exit(&self, code: &str) -> Exit {
        let started = self.now.checked_sub(SignedDuration::from_secs(1)).expect("small");
        Exit::with_code(code.parse().expect("code"), started, self.now)
    }

    fn delete(&mut self, grace: i64) {
        let now = self.now;
        let mut pod = self.life().pod().clone();
        pod.metadata.deletion_timestamp = Some(Time(now));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.step(PodEvent::Applied(Box::new(pod)));
    }

    /// `NAME:ID:ATTEMPT:running` or `NAME:ID:ATTEMPT:CODE`: the agent restarts and finds these.
    fn restore(&mut self, found: &[&str]) {
        let now = self.now;
        let status = self.life().status(now);
        let mut pod = self.life().pod().clone();
        pod.status = Some(status);
        let found: Vec<FoundContainer> = found.iter().map(|text| self.found(text, &pod)).collect();
        let (life, effects) = PodLife::restore(Box::new(pod), settings(), &found, now);
        self.life = Some(life);
        self.print_effects(effects);
        self.step(PodEvent::Tick);
    }

    fn found(&self, text: &str, pod: &Pod) -> FoundContainer {
        let parts: Vec<&str> = text.split(':').collect();
        let [name, id, attempt, state] = parts.as_slice() else { panic!("found: {text}") };
        let state = match *state {
            "running" => FoundState::Running { started_at: start() },
            code => FoundState::Exited(self.exit(code)),
        };
        let pod = kubelet::pod::PodRef::of(pod);
        FoundContainer {
            id: run(id),
            pod,
            container: container(name),
            attempt: attempt.parse().expect("attempt"),
            state,
            image_id: None,
        }
    }

    fn step(&mut self, event: PodEvent) {
        let now = self.now;
        let effects = self.life().step(event, now);
        self.print_effects(effects);
    }

    fn print_effects(&mut self, effects: Vec<Effect>) {
        let at = self.now.duration_since(start()).as_secs();
        for effect in effects {
            writeln!(self.out, "{at}s {}", effect_text(&effect)).expect("write");
        }
    }

    /// Lets time pass, waking the life when it wants to be woken.
    fn advance(&mut self, time: Duration) {
        let end = self.now.checked_add(SignedDuration::try_from(time).expect("small")).expect("small");
        let mut woken = 0;
        loop {
            let now = self.now;
            let Some(wake) = self.life().next_wake(now).filter(|wake| *wake <= end) else { break };
            assert!(wake > now, "a wake-up lies in the future");
            woken += 1;
            assert!(woken < 1000, "a life that wants to be woken forever");
            self.now = wake;
            self.step(PodEvent::Tick);
        }
        self.now = end;
    }

    fn show(&mut self) {
        let now = self.now;
        let status = self.life().status(now);
        let mut text = summary(&status);
        if self.life().may_be_deleted() {
            text += "= may be deleted\n";
        }
        if self.life().is_forgotten() {
            text += "= forgotten\n";
        }
        if text != self.shown {
            self.out += &text;
            self.shown = text;
        }
    }

    fn print_status(&mut self) {
        let now = self.now;
        let status = self.life().status(now);
        self.out = serde_yaml::to_string(&status).expect("status as YAML");
    }
}

fn container(name: &str) -> ContainerName {
    ContainerName(name.to_owned())
}

fn run(id: &str) -> ContainerId {
    ContainerId(id.to_owned())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches('s').parse().expect("seconds"))
}

fn decided(word: &str, rest: &[&str]) -> Decision {
    let shortage = || Shortage { reason: rest[0].to_owned(), message: rest[1..].join(" ") };
    match word {
        "allocated" => Decision::Allocated,
        "deferred" => Decision::Deferred(shortage()),
        "infeasible" => Decision::Infeasible(shortage()),
        _ => panic!("unknown decision {word}"),
    }
}

fn outcome(rest: &[&str]) -> Result<(), String> {
    match rest {
        ["ok"] => Ok(()),
        ["failed", message @ ..] => Err(message.join(" ")),
        _ => panic!("ok or failed: {rest:?}"),
    }
}

fn probed(rest: &[&str]) -> ProbeOutcome {
    match rest {
        ["ok"] => ProbeOutcome::Success,
        ["warned", message @ ..] => ProbeOutcome::Warning(message.join(" ")),
        ["failed", message @ ..] => ProbeOutcome::Failure(message.join(" ")),
        ["errored", message @ ..] => ProbeOutcome::Error(message.join(" ")),
        _ => panic!("ok, warned, failed or errored: {rest:?}"),
    }
}

fn probe_kind(word: &str) -> ProbeKind {
    let all = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
    all.into_iter().find(|kind| kind.word() == word).expect("a probe")
}

fn failure(step: &str, rest: &[&str]) -> StartFailure {
    let message = rest.join(" ");
    match step {
        "config" => StartFailure::Config(message),
        "create" => StartFailure::Create(message),
        "run" => StartFailure::Run { id: run(rest[0]), message: rest[1..].join(" ") },
        _ => panic!("unknown step {step}"),
    }
}

fn missing(name: &str, needed: NeededImage, why: ImageFailure) -> PodEvent {
    let failure = StartFailure::Image(needed, why);
    PodEvent::StartFailed { container: container(name), failure, image: None }
}

fn image_failure(word: &str, message: String) -> ImageFailure {
    match word {
        "pull" => ImageFailure::Pull(message),
        "never" => ImageFailure::NeverPull(message),
        "name" => ImageFailure::InvalidName(message),
        _ => panic!("unknown failure of an image {word}"),
    }
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::RunSandbox => "run sandbox".to_owned(),
        Effect::StartContainer { container, attempt } => format!("start {container} attempt={attempt}"),
        Effect::StopContainer { id, grace } if grace.is_zero() => format!("kill {id}"),
        Effect::StopContainer { id, grace } => format!("stop {id} grace={}s", grace.as_secs()),
        Effect::ResizeContainer { id, .. } => format!("resize {id}"),
        Effect::RemoveContainer { id } => format!("remove {id}"),
        Effect::Probe { id, kind, .. } => format!("probe {id} {}", kind.word()),
        Effect::RunHook { id, hook, .. } => format!("run hook {id} {hook:?}"),
        Effect::Record(note) => {
            let kind = if note.warning { "Warning" } else { "Normal" };
            format!("event {kind} {}: {}", note.reason, note.message)
        }
    }
}

fn summary(status: &PodStatus) -> String {
    let mut text = format!("= {}", status.phase.as_deref().unwrap_or_default());
    if let Some(reason) = &status.reason {
        write!(text, " ({reason})").expect("write");
    }
    let all = status.conditions.iter().flatten();
    let yes: Vec<&str> = all.filter(|c| c.status == "True").map(|c| c.type_.as_str()).collect();
    writeln!(text, " [{}]", yes.join(" ")).expect("write");
    let made_with = status.init_container_statuses.iter().chain(&status.container_statuses);
    let containers = made_with.chain(&status.ephemeral_container_statuses).flatten();
    containers.for_each(|container| writeln!(text, "= {}", container_text(container)).expect("write"));
    text
}

fn container_text(status: &ContainerStatus) -> String {
    let mut text = format!("{}: {}", status.name, state_text(status.state.as_ref()));
    let last = state_text(status.last_state.as_ref());
    if !last.is_empty() {
        write!(text, ", last {last}").expect("write");
    }
    if status.restart_count > 0 {
        write!(text, ", restarts {}", status.restart_count).expect("write");
    }
    for (volume, image) in &kubelet::pod::volumes::told::images(status) {
        write!(text, ", {volume} is {image}").expect("write");
    }
    let flags = [(status.started == Some(true), ", started"), (status.ready, ", ready")];
    flags.into_iter().filter(|(set, _)| *set).for_each(|(_, word)| text += word);
    text
}

fn state_text(state: Option<&ContainerState>) -> String {
    match state {
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let message = waiting.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
            format!("waiting {}{message}", waiting.reason.as_deref().unwrap_or_default())
        }
        Some(ContainerState { running: Some(_), .. }) => "running".to_owned(),
        Some(ContainerState { terminated: Some(ended), .. }) => {
            format!("terminated {} {}", ended.reason.as_deref().unwrap_or_default(), ended.exit_code)
        }
        _ => String::new(),
    }
}

/// Runs a script and returns it with the answers of today.
fn replay(script: &str) -> String {
    let mut conversation = Conversation::new();
    let mut output = String::new();
    for block in script.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty())
    {
        if block.starts_with('#') {
            writeln!(output, "{block}\n").expect("write");
            continue;
        }
        let input = block.split("----").next().unwrap_or_default().trim_end();
        let (line, body) = input.split_once('\n').unwrap_or((input, ""));
        let answer = conversation.command(line.trim(), body);
        writeln!(output, "{input}\n----\n{answer}").expect("write");
    }
    output
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/life");
    let mut count = 0;
    let mut changed = Vec::new();
    for entry in std::fs::read_dir(&dir).expect("testdata") {
        let path = entry.expect("entry").path();
        let script = std::fs::read_to_string(&path).expect("script");
        let today = replay(&script);
        count += 1;
        if today == script {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, today).expect("write");
        } else {
            changed.push(format!("{}:\n{today}", path.display()));
        }
    }
    assert!(count > 0, "no scripts in {}", dir.display());
    assert!(changed.is_empty(), "answers differ (UPDATE=1 rewrites them):\n{}", changed.join("\n"));
}
