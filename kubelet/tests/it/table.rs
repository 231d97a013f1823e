//! All pods of a node: what is published, adopted, refused and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubelet::Backoff;
use kubelet::agent::table::{LogRefusal, PodTable, Publication, Work};
use kubelet::pod::effect::{Effect, Note, PodEvent};
use kubelet::pod::life::Settings;
use kubelet::pod::{ContainerId, ContainerName, PodRef, PodUid};
use kubelet::runtime::{Exit, FoundContainer, FoundState, ImageUse};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("time")
}

fn table() -> PodTable {
    let settings = Settings {
        backoff: Backoff::default(),
        host_ip: "10.0.0.1".to_owned(),
        runtime: "amoeba".to_owned(),
    };
    let allocatable = [("cpu", 1000), ("memory", 1 << 30), ("pods", 2)];
    PodTable::new(Arc::new(settings), BTreeMap::from(allocatable.map(|(name, n)| (name.to_owned(), n))))
}

fn pod(name: &str, cpu: &str) -> Pod {
    serde_yaml::from_str(&format!(
        "
metadata: {{name: {name}, namespace: default, uid: uid-{name}}}
spec:
  containers: [{{name: main, image: app, resources: {{requests: {{cpu: {cpu}}}}}}}]
"
    ))
    .expect("a pod")
}

fn uid(name: &str) -> PodUid {
    PodUid(format!("uid-{name}"))
}

fn run(id: &str) -> ContainerId {
    ContainerId(id.to_owned())
}

fn published(work: &[Work]) -> Vec<&Publication> {
    work.iter().filter_map(|w| if let Work::Publish(p) = w { Some(p) } else { None }).collect()
}

fn effects(work: &[Work]) -> Vec<&Effect> {
    work.iter().filter_map(|w| if let Work::Effect(_, effect) = w { Some(effect) } else { None }).collect()
}

/// Brings a pod to life with the run `id`.
fn start(table: &mut PodTable, name: &str, id: &str) {
    table.applied(&pod(name, "100m"), now());
    table.answered(&uid(name), PodEvent::SandboxReady { ip: None }, now());
    let container = ContainerName("main".to_owned());
    table.answered(
        &uid(name),
        PodEvent::Started {
            container,
            id: run(id),
            at: now(),
            image: ImageUse::Present(None),
            mounted: Default::default(),
        },
        now(),
    );
}

fn found(name: &str, id: &str, state: FoundState) -> FoundContainer {
    let pod = PodRef::of(&pod(name, "100m"));
    let container = ContainerName("main".to_owned());
    FoundContainer { id: run(id), pod, container, attempt: 0, state, image_id: None }
}

#[test]
fn a_pod_that_does_not_fit_is_refused_in_upstreams_words() {
    let mut table = table();
    table.applied(&pod("a", "800m"), now());
    let work = table.applied(&pod("b", "300m"), now());
    assert!(!effects(&work).contains(&&Effect::RunSandbox));
    let status = &published(&work)[0].patch["status"];
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "OutOfcpu");
    assert_eq!(
        status["message"],
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 300, used: 800, capacity: 1000"
    );
    assert_eq!(status.get("containerStatuses"), None);
    // It was never of this node: nothing is said of where it is or how it goes.
    assert_eq!((status.get("hostIP"), &status["conditions"]), (None, &serde_json::json!([])));
    let rejected = "Node didn't have enough resource: cpu, requested: 300, used: 800, capacity: 1000";
    assert!(effects(&work).contains(&&Effect::Record(Note::warning("OutOfcpu", rejected))), "{work:?}");
    // A refused pod takes no room.
    let work = table.applied(&pod("c", "200m"), now());
    assert!(effects(&work).contains(&&Effect::RunSandbox));
    let work = table.applied(&pod("d", "0"), now());
    assert_eq!(published(&work)[0].patch["status"]["reason"], "OutOfpods");
}

#[test]
fn a_pod_whose_object_is_gone_takes_no_room_while_its_processes_end() {
    let mut table = table();
    start(&mut table, "a", "r0");
    start(&mut table, "b", "r1");
    table.removed(&uid("a"), now());
    let work = table.applied(&pod("c", "850m"), now());
    assert!(effects(&work).contains(&&Effect::RunSandbox));
}

#[test]
fn what_runs_is_adopted_and_ends_only_after_a_complete_list_without_it() {
    let mut table = table();
    let running = found("a", "r0", FoundState::Running { started_at: now() });
    let work = table.restore(vec![pod("a", "100m")], vec![running], now());
    assert_eq!(effects(&work), Vec::<&Effect>::new(), "nothing is started or stopped");
    let work = table.synced(&BTreeSet::from([uid("a")]), now());
    assert!(work.is_empty(), "{work:?}");
    let work = table.synced(&BTreeSet::new(), now());
    let stop = Effect::StopContainer { id: run("r0"), grace: Duration::from_secs(30) };
    assert!(effects(&work).contains(&&stop), "{work:?}");
    let exit = Exit::with_code(143, now(), now());
    let work = table.exited(&PodRef::of(&pod("a", "0")), run("r0"), exit, now());
    assert!(matches!(work.as_slice(), [Work::Forget(_)]), "{work:?}");
    table.forgotten(&uid("a"));
    assert_eq!(table.pods().count(), 0);
}

#[test]
fn containers_nobody_knows_are_killed_after_the_list_and_then_forgotten() {
    let mut table = table();
    let stray = found("gone", "r0", FoundState::Running { started_at: now() });
    assert!(table.restore(Vec::new(), vec![stray], now()).is_empty());
    let work = table.synced(&BTreeSet::new(), now());
    assert!(matches!(work.as_slice(), [Work::Kill(id)] if *id == run("r0")), "{work:?}");
    let exit = Exit::with_code(137, now(), now());
    let work = table.exited(&PodRef::of(&pod("gone", "0")), run("r0"), exit, now());
    assert!(matches!(work.as_slice(), [Work::Forget(_)]), "{work:?}");
}

#[test]
fn containers_without_a_record_are_adopted_when_the_pod_is_told_of() {
    let mut table = table();
    let running = found("a", "r0", FoundState::Running { started_at: now() });
    table.restore(Vec::new(), vec![running], now());
    let work = table.applied(&pod("a", "100m"), now());
    assert_eq!(effects(&work), Vec::<&Effect>::new());
    assert_eq!(published(&work)[0].patch["status"]["phase"], "Running");
    assert!(table.synced(&BTreeSet::from([uid("a")]), now()).is_empty());
}

#[test]
fn only_changes_are_published_and_the_delete_comes_last() {
    let mut table = table();
    start(&mut table, "a", "r0");
    assert!(published(&table.answered(&uid("a"), PodEvent::Tick, now())).is_empty());
    let mut deleted = pod("a", "100m");
    deleted.metadata.deletion_timestamp = Some(Time(now()));
    deleted.metadata.deletion_grace_period_seconds = Some(5);
    let work = table.applied(&deleted, now());
    assert!(published(&work).iter().all(|p| !p.then_delete));
    let exit = Exit::with_code(0, now(), now());
    let work = table.exited(&PodRef::of(&deleted), run("r0"), exit, now());
    let last = published(&work);
    assert!(last[0].then_delete && last[0].patch["status"]["phase"] == "Succeeded", "{last:?}");
}

#[test]
fn a_condition_that_another_has_overwritten_is_told_again() {
    let mut table = table();
    start(&mut table, "a", "r0");
    let mut seen = pod("a", "100m");
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let as_seen = |ready: &str| -> Vec<PodCondition> {
        let status = |kind: &str| if kind == "Ready" { ready.to_owned() } else { "True".to_owned() };
        conditions
            .map(|kind| PodCondition {
                type_: kind.to_owned(),
                status: status(kind),
                ..PodCondition::default()
            })
            .to_vec()
    };
    let status = seen.status.get_or_insert_default();
    status.phase = Some("Running".to_owned());
    status.conditions = Some(as_seen("True"));
    assert!(published(&table.applied(&seen, now())).is_empty());
    seen.status.get_or_insert_default().conditions = Some(as_seen("False"));
    assert_eq!(published(&table.applied(&seen, now())).len(), 1);
}

#[test]
fn logs_are_found_for_the_run_that_is_meant() {
    let mut table = table();
    table.applied(&pod("a", "100m"), now());
    let waiting = table.log_target("default", "a", "main");
    let message = "container \"main\" in pod \"a\" is waiting to start: ContainerCreating";
    assert_eq!(waiting, Err(LogRefusal::NotNow(message.to_owned())));
    assert!(matches!(table.log_target("default", "b", "main"), Err(LogRefusal::NoPod(_))));
    start(&mut table, "a", "r0");
    let target = table.log_target("default", "a", "main").expect("a run");
    assert_eq!((target.current, target.running, target.previous), (0, true, None));
    let exit = Exit::with_code(1, now(), now());
    table.exited(&PodRef::of(&pod("a", "0")), run("r0"), exit, now());
    let container = ContainerName("main".to_owned());
    table.answered(
        &uid("a"),
        PodEvent::Started {
            container,
            id: run("r1"),
            at: now(),
            image: ImageUse::Present(None),
            mounted: Default::default(),
        },
        now(),
    );
    let target = table.log_target("default", "a", "main").expect("a run");
    assert_eq!((target.current, target.running, target.previous), (1, true, Some(0)));
}

#[test]
fn a_stopping_agent_publishes_nothing() {
    let mut table = table();
    start(&mut table, "a", "r0");
    let work = table.stop(Duration::from_secs(5), now());
    let stop = Effect::StopContainer { id: run("r0"), grace: Duration::from_secs(5) };
    assert!(effects(&work).contains(&&stop), "{work:?}");
    assert!(!table.is_quiet());
    let exit = Exit::with_code(143, now(), now());
    let work = table.exited(&PodRef::of(&pod("a", "0")), run("r0"), exit, now());
    assert!(work.is_empty(), "{work:?}");
    assert!(table.is_quiet());
}

#[test]
fn a_pod_that_was_down_with_its_node_waits_for_word() {
    let mut table = table();
    let exit = Exit::with_code(137, now(), now());
    let ended = || found("a", "r0", FoundState::Exited(exit.clone()));
    let work = table.restore(vec![pod("a", "100m")], vec![ended()], now());
    assert_eq!(effects(&work), Vec::<&Effect>::new());
    let work = table.applied(&pod("a", "100m"), now());
    assert!(matches!(effects(&work).as_slice(), [Effect::StartContainer { attempt: 1, .. }]), "{work:?}");

    let mut replaced = self::table();
    replaced.restore(vec![pod("a", "100m")], vec![ended()], now());
    let work = replaced.synced(&BTreeSet::new(), now());
    assert!(matches!(work.as_slice(), [Work::Forget(_)]), "{work:?}");

    let mut alone = self::table();
    alone.restore(vec![pod("a", "100m")], vec![ended()], now());
    let work = alone.tick(alone.next_wake().expect("patience ends"));
    assert!(matches!(effects(&work).as_slice(), [Effect::StartContainer { attempt: 1, .. }]), "{work:?}");
}

#[test]
fn a_resize_waits_for_room_and_counts_from_when_it_is_promised() {
    let mut table = table();
    start(&mut table, "a", "r0");
    start(&mut table, "b", "s0");
    let reason = |work: &[Work]| -> Vec<String> {
        let records = effects(work).into_iter().filter_map(|effect| match effect {
            Effect::Record(note) => Some(note.reason.clone().into_owned()),
            Effect::ResizeContainer { id, .. } => Some(format!("resize {id}")),
            _ => None,
        });
        records.collect()
    };
    let resized = |name: &str, cpu: &str| {
        let mut pod = pod(name, cpu);
        pod.metadata.generation = Some(2);
        pod
    };
    let work = table.applied(&resized("b", "2"), now());
    assert_eq!(reason(&work), ["ResizeInfeasible"]);
    let work = table.applied(&resized("a", "950m"), now());
    assert_eq!(reason(&work), ["ResizeDeferred"]);
    let told = published(&work);
    let conditions = &told.last().expect("told").patch["status"]["conditions"];
    let pending = conditions.as_array().expect("a list").iter().find(|c| c["type"] == "PodResizePending");
    let pending = pending.expect("pending");
    assert_eq!(pending["reason"], "Deferred");
    assert_eq!(
        pending["message"],
        "Node didn't have enough resource: cpu, requested: 950, used: 100, capacity: 1000"
    );
    // The same again is told once.
    assert_eq!(reason(&table.applied(&resized("a", "950m"), now())), Vec::<String>::new());
    let work = table.applied(&resized("b", "50m"), now());
    assert_eq!(reason(&work), ["ResizeStarted", "resize s0", "ResizeStarted", "resize r0"]);
    // What is promised is taken, also before it is there.
    let work = table.applied(&pod("c", "100m"), now());
    assert!(!effects(&work).contains(&&Effect::RunSandbox));
    let work = table.answered(&uid("a"), PodEvent::Resized { id: run("r0"), outcome: Ok(()) }, now());
    assert_eq!(reason(&work), ["ResizeCompleted"]);
    let status = &published(&work)[0].patch["status"]["containerStatuses"][0];
    assert_eq!(status["resources"]["requests"]["cpu"], "950m");
    assert_eq!(status["allocatedResources"]["cpu"], "950m");
}

#[test]
fn pods_are_ended_and_refused_while_memory_is_short() {
    use kubelet::eviction::threshold::{Signal, hard};
    use kubelet::eviction::{EvictionConfig, Observation, PodUsage, Supply};
    let thresholds = hard("memory.available<100Mi").expect("a threshold");
    let config = EvictionConfig { thresholds, ..EvictionConfig::off() };
    let mut table = table().with_eviction(config);
    start(&mut table, "a", "r0");
    let supply = Supply { available: 50 << 20, capacity: 1 << 30 };
    let usage =
        PodUsage { memory: [(ContainerName("main".to_owned()), 300 << 20)].into(), ..PodUsage::default() };
    let seen = Observation {
        supplies: [(Signal::MemoryAvailable, supply)].into(),
        pods: [(uid("a"), usage)].into(),
    };
    let work = table.observed(&seen, now());
    let stop = Effect::StopContainer { id: run("r0"), grace: Duration::from_secs(1) };
    assert!(effects(&work).contains(&&stop), "{work:?}");
    assert!(table.pressure().memory);
    assert!(table.observed(&seen, now()).is_empty(), "one pod ends at a time");
    let work = table.applied(&pod("b", "0"), now());
    assert_eq!(published(&work)[0].patch["status"]["reason"], "Evicted");
    assert_eq!(
        published(&work)[0].patch["status"]["message"],
        "Pod was rejected: The node had condition: [MemoryPressure]. "
    );
    let pod_ref = PodRef::of(&pod("a", "0"));
    let work = table.exited(&pod_ref, run("r0"), Exit::with_code(137, now(), now()), now());
    let status = &published(&work)[0].patch["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"Evicted".into()));
    assert_eq!(
        status["message"],
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using \
         300Mi, request is 0, has larger consumption of memory. "
    );
    let conditions = status["conditions"].as_array().expect("a list");
    let disruption = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("told");
    assert_eq!(disruption["reason"], "TerminationByKubelet");
}

#[test]
fn a_node_that_goes_down_ends_its_pods_by_priority_and_takes_no_more() {
    let mut table = table();
    let mut critical = pod("b", "100m");
    critical.spec.as_mut().expect("a spec").priority = Some(2_000_000_000);
    start(&mut table, "a", "r0");
    table.applied(&critical, now());
    table.answered(&uid("b"), PodEvent::SandboxReady { ip: None }, now());
    let container = ContainerName("main".to_owned());
    let image = ImageUse::Present(None);
    table.answered(
        &uid("b"),
        PodEvent::Started { container, id: run("s0"), at: now(), image, mounted: Default::default() },
        now(),
    );
    table.shut_down();
    let work = table.applied(&pod("c", "0"), now());
    assert_eq!(published(&work)[0].patch["status"]["reason"], "NodeShutdown");
    let stops = |work: &[Work]| -> Vec<(String, u64)> {
        let stops = effects(work).into_iter().filter_map(|effect| match effect {
            Effect::StopContainer { id, grace } => Some((id.to_string(), grace.as_secs())),
            _ => None,
        });
        stops.collect()
    };
    let work = table.end_for_shutdown(false, Duration::from_secs(20), now());
    assert_eq!(stops(&work), [("r0".to_owned(), 20)]);
    assert!(!table.has_ended(false) && !table.has_ended(true));
    let exit = Exit::with_code(143, now(), now());
    let work = table.exited(&PodRef::of(&pod("a", "0")), run("r0"), exit, now());
    let status = &published(&work)[0].patch["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"Terminated".into()));
    assert_eq!(status["message"], "Pod was terminated in response to imminent node shutdown.");
    assert!(table.has_ended(false) && !table.has_ended(true));
    let work = table.end_for_shutdown(true, Duration::from_secs(10), now());
    assert_eq!(stops(&work), [("s0".to_owned(), 10)]);
}

fn fencing(name: &str, version: &str) -> Pod {
    let mut pod = pod(name, "0");
    let asks = (api::self_fence::ANNOTATION.to_owned(), "true".to_owned());
    pod.metadata.annotations = Some(BTreeMap::from([asks]));
    pod.metadata.resource_version = Some(version.to_owned());
    pod
}

#[test]
fn who_fences_himself_and_was_given_up_never_begins_here() {
    let mut table = table();
    table.applied(&fencing("begins", "5"), now());
    table.applied(&pod("other", "0"), now());
    let reason = |work: &[Work]| published(work).last().map(|told| told.patch["status"]["reason"].clone());
    let work = table.give_up(BTreeSet::from([uid("listed")]), 10, now());
    assert_eq!(reason(&work), Some("SelfFenced".into()), "the other one isn't asked");
    assert!(!table.given_up_have_ended(), "its sandbox is being made");
    let work = table.answered(&uid("begins"), PodEvent::SandboxReady { ip: None }, now());
    assert_eq!(effects(&work), Vec::<&Effect>::new(), "nothing is started in it");
    assert!(table.given_up_have_ended());
    // A watch that is late tells of one that the server has no more, or had when the node came back.
    for (name, version) in [("old", "9"), ("listed", "20")] {
        let work = table.applied(&fencing(name, version), now());
        assert_eq!(reason(&work), Some("SelfFenced".into()), "{name}");
    }
    let work = table.applied(&fencing("new", "11"), now());
    assert!(effects(&work).contains(&&Effect::RunSandbox), "who came later is welcome");
}

#[test]
fn a_pod_that_has_fenced_itself_is_over_whatever_its_restart_policy() {
    let mut table = table();
    start(&mut table, "a", "r0");
    let reason = Some("SelfFenced".to_owned());
    let exit = Exit { reason, ..Exit::with_code(137, now(), now()) };
    let work = table.exited(&PodRef::of(&pod("a", "0")), run("r0"), exit, now());
    let status = &published(&work).last().expect("it is told").patch["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"SelfFenced".into()));
    assert!(table.tick(now() + Duration::from_secs(600)).is_empty(), "and not restarted");
}

/// A pod from a file, called NAME-n1, that runs this image.
fn from_file(name: &str, image: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, image: {image}}}]}}\n"
    );
    let file = std::path::Path::new("/static/pod.yaml");
    kubelet::pod::static_pod::read(text.as_bytes(), file, "n1", "2026-01-01T00:00:00Z").expect("a pod")
}

#[test]
fn a_pod_of_a_file_is_told_of_by_its_mirror() {
    let mut table = table();
    let pod = from_file("web", "one");
    let own = PodRef::of(&pod).uid;
    let work = table.static_pods(vec![pod.clone()], now());
    assert!(effects(&work).contains(&&Effect::RunSandbox), "it waits for no API server");
    assert!(published(&work).is_empty(), "nobody stands for it yet");
    let mut mirror = kubelet::pod::static_pod::mirror(&pod, "n1", "node-uid");
    mirror.metadata.uid = Some("m1".to_owned());
    let work = table.mirrored(&own, Some(&mirror), now());
    assert_eq!(published(&work)[0].pod.uid, PodUid("m1".to_owned()));
    assert_eq!(published(&work)[0].patch["metadata"]["uid"], "m1");
    // Another one in its place is told at once, too; and the API's list says nothing about who runs from files.
    mirror.metadata.uid = Some("m2".to_owned());
    assert_eq!(published(&table.mirrored(&own, Some(&mirror), now())).len(), 1);
    assert!(table.synced(&BTreeSet::new(), now()).is_empty());
    assert_eq!(table.from_files().count(), 1);
}

#[test]
fn a_file_that_changes_ends_one_pod_before_the_next_begins() {
    let mut table = table();
    let (old, new) = (from_file("web", "one"), from_file("web", "two"));
    table.static_pods(vec![old.clone()], now());
    let work = table.static_pods(vec![new.clone()], now());
    assert!(!effects(&work).contains(&&Effect::RunSandbox), "the old one's sandbox is being made: {work:?}");
    let work = table.answered(&PodRef::of(&old).uid, PodEvent::SandboxReady { ip: None }, now());
    assert!(matches!(work.last(), Some(Work::Forget(_))), "{work:?}");
    table.forgotten(&PodRef::of(&old).uid);
    let work = table.begin_static_pods(now());
    assert!(effects(&work).contains(&&Effect::RunSandbox), "{work:?}");
    // And the file goes.
    let work = table.static_pods(Vec::new(), now());
    assert!(!effects(&work).contains(&&Effect::RunSandbox), "{work:?}");
}

#[test]
fn a_pod_that_keeps_more_than_it_has_said_is_evicted() {
    let mut table = table();
    let mut pod = pod("a", "0");
    let volume = "{name: cache, emptyDir: {sizeLimit: 1Mi}}";
    let volume = serde_yaml::from_str(volume).expect("a volume");
    pod.spec.as_mut().expect("a spec").volumes = Some(vec![volume]);
    start(&mut table, "a", "r0");
    table.applied(&pod, now());
    let used = |bytes| kubelet::eviction::storage::StorageUsage {
        volumes: BTreeMap::from([("cache".to_owned(), bytes)]),
        ..Default::default()
    };
    assert!(table.stored(&uid("a"), &used(1 << 20), now()).is_empty());
    let work = table.stored(&uid("a"), &used((1 << 20) + 1), now());
    let stop = Effect::StopContainer { id: run("r0"), grace: Duration::from_secs(1) };
    assert!(effects(&work).contains(&&stop), "{work:?}");
    let exit = Exit::with_code(143, now(), now());
    let work = table.exited(&PodRef::of(&pod), run("r0"), exit, now());
    let status = &published(&work).last().expect("it is told").patch["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"Evicted".into()));
    assert_eq!(status["message"], "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ");
    assert!(table.stored(&uid("a"), &used(9 << 20), now()).is_empty(), "once");
}
