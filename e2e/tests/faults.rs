//! Random faults against real processes: nothing acknowledged is lost, nothing goes back, nobody misses or
//! repeats a change, and what no fault touched isn't touched by the cluster either.
//!
//! The seed makes the plan, and the plan is printed before it begins. `FAULT_SEED=7 cargo test -p e2e --test
//! faults -- --nocapture` does it again; `FAULT_SECONDS=300` does it for longer. The times of the processes
//! themselves are not the seed's, so a rare failure may need several runs of its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use e2e::api::{Answer, Api};
use e2e::{Cluster, eventually, is_ready, manifest, pause};
use serde_json::{Value, json};

const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];
/// The node that no fault takes down: only its agent is killed.
const SPARED: &str = "n1";
const NODES: [&str; 3] = [SPARED, "n2", "n3"];
const WRITERS: u64 = 3;
/// How long faults are caused, unless `$FAULT_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// A request without an answer in this time is given up; whether it was done is unknown then.
const ATTEMPT: Duration = Duration::from_secs(3);
/// A watch hears at least bookmarks; one that hears nothing for so long is begun again.
const SILENCE: Duration = Duration::from_secs(8);
/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(20);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// SplitMix64: the plan follows from the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }

    fn one_of<'a>(&mut self, names: &[&'a str]) -> &'a str {
        names[usize::try_from(self.below(names.len() as u64)).expect("few names")]
    }
}

#[derive(Clone, Debug)]
enum Fault {
    /// `amoeba chaos VERB NAME`, and after a while `resume`.
    Chaos(&'static str, &'static str),
    /// SIGSTOP that the supervisor doesn't know of, and after a while SIGCONT.
    Freeze(&'static str),
    /// SIGKILL that the supervisor doesn't know of: it starts the process again.
    Crash(&'static str),
    /// Two members at once: no quorum for a while.
    NoQuorum(&'static str, &'static str),
    /// Supervisor, members and agents at once, and all started again.
    PowerCut,
}

#[derive(Clone, Debug)]
struct Step {
    fault: Fault,
    hold: Duration,
    /// Between its end and the next.
    rest: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:?}, then rest for {:?}", self.fault, self.hold, self.rest)
    }
}

/// Faults for about `length`, with a power cut among them.
fn plan(random: &mut Random, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut planned = Duration::ZERO;
    while planned < length {
        let step = Step {
            fault: fault(random),
            hold: Duration::from_millis(200 + random.below(2800)),
            rest: Duration::from_millis(random.below(1500)),
        };
        planned += step.hold + step.rest;
        steps.push(step);
    }
    let middle = steps.len() / 2;
    steps[middle].fault = Fault::PowerCut;
    steps
}

fn fault(random: &mut Random) -> Fault {
    let (member, node) = (random.one_of(&MEMBERS), random.one_of(&NODES[1..]));
    let verb = random.one_of(&["kill", "stop"]);
    match random.below(12) {
        0..=2 => Fault::Chaos(verb, member),
        3..=4 => Fault::Chaos(verb, node),
        5..=6 => Fault::Freeze(member),
        7..=8 => Fault::Crash(member),
        9..=10 => Fault::Crash(random.one_of(&NODES)),
        _ => Fault::NoQuorum(member, MEMBERS.into_iter().find(|other| *other != member).expect("three")),
    }
}

/// What a writer was told.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Name → resourceVersion of each acknowledged create.
    created: BTreeMap<String, u64>,
    /// Each acknowledged update of the writer's own counter: its value and resourceVersion.
    counted: Vec<(u64, u64)>,
    /// The last value that was tried, acknowledged or not.
    tried: u64,
    unanswered: u64,
}

/// Shared by writers, the reader and the watcher.
struct Run {
    api: Api,
    stop: AtomicBool,
    began: Instant,
    /// The greatest resourceVersion that anybody was told.
    seen: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// One line of the story, with its time.
    fn note(&self, text: fmt::Arguments<'_>) {
        println!("{:>7.3} {text}", self.began.elapsed().as_secs_f64());
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let asked = Instant::now();
        let answer = self.api.call(method, path, body, ATTEMPT);
        if asked.elapsed() > Duration::from_secs(1) {
            let outcome = answer.as_ref().map(|answer| answer.code);
            self.note(format_args!("{method} {path} took {:?}: {outcome:?}", asked.elapsed()));
        }
        let answer = answer.ok()?;
        // Overload and absence of a leader may pass; everything else is an answer.
        (answer.code != 429 && answer.code < 500).then_some(answer)
    }

    fn tell(&self, version: u64) {
        self.seen.fetch_max(version, Ordering::SeqCst);
    }

    /// A list that must be as new as everything acknowledged before it was asked for.
    fn list(&self) -> Option<(u64, Vec<Value>)> {
        let known = self.seen.load(Ordering::SeqCst);
        let answer = self.call("GET", &format!("{CONFIG_MAPS}?labelSelector=faults"), None)?;
        assert_eq!(answer.code, 200, "{}", answer.object);
        let version = version(&answer.object);
        assert!(version >= known, "a list at {version}, but {known} was acknowledged before");
        self.tell(version);
        let items = answer.object["items"].as_array().cloned().unwrap_or_default();
        Some((version, items))
    }
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no resourceVersion: {object}"))
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("no name: {object}")).to_owned()
}

fn config_map(name: &str, value: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"faults": "yes"}},
        "data": {"value": value.to_string()},
    })
}

fn value(object: &Value) -> u64 {
    object["data"]["value"].as_str().and_then(|value| value.parse().ok()).expect("a value")
}

/// Creates objects under new names and counts in one of its own, one request after the other.
fn write(run: &Run, writer: u64) -> Acknowledged {
    let mut told = Acknowledged::default();
    let mut last = 0;
    for number in 1.. {
        if !run.goes_on() {
            break;
        }
        pause(PACE);
        let answered = if number % 2 == 1 {
            create(run, &mut told, &format!("w{writer}-{number}"), number)
        } else {
            count(run, &mut told, &format!("{CONFIG_MAPS}/counter-{writer}"), number)
        };
        let Some(version) = answered else {
            told.unanswered += 1;
            continue;
        };
        assert!(version > last, "acknowledged at {version} after {last}");
        last = version;
        run.tell(version);
    }
    told
}

fn create(run: &Run, told: &mut Acknowledged, name: &str, number: u64) -> Option<u64> {
    let answer = run.call("POST", CONFIG_MAPS, Some(&config_map(name, number)))?;
    assert_eq!(answer.code, 201, "{name}: {}", answer.object);
    let version = version(&answer.object);
    told.created.insert(name.to_owned(), version);
    Some(version)
}

/// Replaces exactly the version that was read before: an attempt that was given up and is carried out by a
/// frozen member later must not undo what came after it.
fn count(run: &Run, told: &mut Acknowledged, path: &str, number: u64) -> Option<u64> {
    let mut object = run.call("GET", path, None)?.object;
    let (_, acknowledged) = told.counted.last().copied().unwrap_or_default();
    assert!(version(&object) >= acknowledged, "a read at {}, but {acknowledged} is known", version(&object));
    told.tried = number;
    object["data"]["value"] = json!(number.to_string());
    let answer = run.call("PUT", path, Some(&object))?;
    if answer.code == 409 {
        return None; // An attempt that was given up has been carried out after all.
    }
    assert_eq!(answer.code, 200, "{path}: {}", answer.object);
    let version = version(&answer.object);
    told.counted.push((number, version));
    read_back(run, path, number, version);
    Some(version)
}

/// A read by name is as new as the write acknowledged before it, whichever member answers.
fn read_back(run: &Run, path: &str, written: u64, at: u64) {
    let Some(answer) = run.call("GET", path, None) else { return };
    assert_eq!(answer.code, 200, "{path}: {}", answer.object);
    let found = (value(&answer.object), version(&answer.object));
    assert!(
        found.0 >= written && found.1 >= at,
        "{path} is {found:?}, but ({written}, {at}) was acknowledged"
    );
}

/// What a watcher saw, in order.
#[derive(Debug, Default)]
struct Seen {
    events: Vec<(String, String, u64, u64)>,
    watches: u64,
}

/// Watches from `start` to `end`, beginning again after the last event whenever the connection is lost.
fn watch(run: &Run, start: u64, end: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut cursor = start;
    let done = |cursor: u64| matches!(end.load(Ordering::SeqCst), last if last > 0 && cursor >= last);
    while !done(cursor) {
        let path = format!(
            "{CONFIG_MAPS}?labelSelector=faults&watch=true&allowWatchBookmarks=true&resourceVersion={cursor}"
        );
        let Ok(events) = run.api.watch(&path, SILENCE) else {
            pause(PACE);
            continue;
        };
        seen.watches += 1;
        let mut heard = Instant::now();
        for event in events {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    run.note(format_args!(
                        "the watch ends {:?} after its last event: {error}",
                        heard.elapsed()
                    ));
                    break;
                }
            };
            heard = Instant::now();
            let (kind, object) = (event["type"].as_str().unwrap_or_default().to_owned(), &event["object"]);
            if kind == "ERROR" {
                // The member may be behind what we saw elsewhere; history that is gone is a violation.
                assert_ne!(object["code"], 410, "the history after {cursor} is gone: {object}");
                break;
            }
            let at = version(object);
            if kind == "BOOKMARK" {
                assert!(at >= cursor, "a bookmark at {at} after {cursor}");
            } else {
                assert!(at > cursor, "{kind} of {} at {at} after {cursor}", name(object));
                seen.events.push((kind, name(object), at, value(object)));
            }
            cursor = at;
            if done(cursor) {
                break;
            }
        }
    }
    seen
}

/// Carries out the plan.
fn disturb(run: &Run, cluster: &mut Cluster, plan: &[Step]) {
    for (number, step) in plan.iter().enumerate() {
        run.note(format_args!("{number}: {step}"));
        match &step.fault {
            Fault::Chaos(verb, child) => {
                cluster.a(&format!("chaos {verb} {child}"));
                pause(step.hold);
                cluster.a(&format!("chaos resume {child}"));
            }
            Fault::Freeze(child) => {
                cluster.signal(child, libc::SIGSTOP);
                pause(step.hold);
                cluster.signal(child, libc::SIGCONT);
            }
            Fault::Crash(child) => cluster.signal(child, libc::SIGKILL),
            Fault::NoQuorum(one, other) => {
                cluster.a(&format!("chaos kill {one}"));
                cluster.a(&format!("chaos stop {other}"));
                pause(step.hold);
                cluster.a(&format!("chaos resume {other}"));
                cluster.a(&format!("chaos resume {one}"));
            }
            Fault::PowerCut => {
                cluster.kill_control();
                cluster.start();
            }
        }
        pause(step.rest);
    }
}

/// Of each running pod of a node: uid → (container id, restarts).
fn containers(pods: &[Value], node: &str) -> BTreeMap<String, (Value, Value)> {
    let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
    here.map(|pod| {
        let container = &pod["status"]["containerStatuses"][0];
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        (uid, (container["containerID"].clone(), container["restartCount"].clone()))
    })
    .collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_faults_break_no_promise() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let seed = number("FAULT_SEED").unwrap_or(clock % 1_000_000);
    let length = Duration::from_secs(number("FAULT_SECONDS").unwrap_or(SECONDS));
    let plan = plan(&mut Random(seed), length);
    println!(
        "replay: FAULT_SEED={seed} FAULT_SECONDS={} cargo test -p e2e --test faults -- --nocapture",
        length.as_secs()
    );
    plan.iter().enumerate().for_each(|(number, step)| println!("plan {number}: {step}"));

    let mut cluster = Cluster::up(MEMBERS.len(), NODES.len());
    cluster.k(&format!("apply -f {}", manifest("web.yaml")));
    let spared = containers(&cluster.ready_pods("app=web", 6), SPARED);
    assert!(!spared.is_empty(), "the pods are spread over the nodes");

    let api = Api::new(cluster.port(), &cluster.kubeconfig());
    let run = Run { api, stop: AtomicBool::new(false), began: Instant::now(), seen: AtomicU64::new(0) };
    let (start, _) = eventually("a list to begin with", || run.list());
    let counters = (0..WRITERS).map(|writer| format!("counter-{writer}"));
    for name in counters.chain(["end".to_owned()]) {
        let made = run.call("POST", CONFIG_MAPS, Some(&config_map(&name, 0))).expect("the cluster is whole");
        assert_eq!(made.code, 201, "{}", made.object);
    }
    let end = AtomicU64::new(0);
    let (told, seen, lists) = std::thread::scope(|scope| {
        let (run, end) = (&run, &end);
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(run, writer))).collect();
        let watcher = scope.spawn(move || watch(run, start, end));
        let lister = scope.spawn(move || {
            let mut lists = 0;
            while run.goes_on() {
                lists += u64::from(run.list().is_some());
                pause(5 * PACE);
            }
            lists
        });
        // Whatever happens, the threads must end, or the scope never does.
        let disturbed =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| disturb(run, &mut cluster, &plan)));
        run.stop.store(true, Ordering::SeqCst);
        let told: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let lists = lister.join();
        // A last write, that the watcher must see after all others.
        let last = eventually("a last write", || {
            let answer = run.call("PUT", &format!("{CONFIG_MAPS}/end"), Some(&config_map("end", 1)))?;
            (answer.code == 200).then(|| version(&answer.object))
        });
        end.store(last, Ordering::SeqCst);
        let seen = watcher.join();
        disturbed.expect("the plan was carried out");
        let told: Vec<_> = told.into_iter().map(|told| told.expect("a writer saw no violation")).collect();
        (told, seen.expect("the watcher saw no violation"), lists.expect("the lister saw no violation"))
    });

    check_writes(&run, &told);
    check_events(&run, &told, &seen);
    let restored = cluster.ready_pods("app=web", 6);
    check_pods(&cluster, &restored, &spared);
    let (created, counted): (usize, usize) =
        (told.iter().map(|t| t.created.len()).sum(), told.iter().map(|t| t.counted.len()).sum());
    println!(
        "seed {seed}: {created} creates and {counted} updates acknowledged, {} unanswered, {lists} lists, \
         {} events over {} watches",
        told.iter().map(|t| t.unanswered).sum::<u64>(),
        seen.events.len(),
        seen.watches,
    );
    assert!(created > 20 && counted > 20, "a test in which nothing happens proves nothing");
    cluster.stop();
    assert_eq!(cluster.leftovers(), Vec::<Vec<String>>::new(), "no process is left");
}

/// Every acknowledged write is there.
fn check_writes(run: &Run, told: &[Acknowledged]) {
    let (_, items) = eventually("a list at the end", || run.list());
    let found: BTreeMap<String, (u64, u64)> =
        items.iter().map(|item| (name(item), (version(item), value(item)))).collect();
    for (writer, told) in told.iter().enumerate() {
        for (name, at) in &told.created {
            let found = found.get(name).map(|(version, _)| version);
            assert_eq!(found, Some(at), "{name} was acknowledged at {at}");
        }
        let (at, value) = found[&format!("counter-{writer}")];
        let (acknowledged, when) = told.counted.last().copied().unwrap_or_default();
        assert!(
            at >= when && value >= acknowledged,
            "counter {writer} is {value} at {at}, not {acknowledged} at {when}"
        );
        assert!(value <= told.tried, "counter {writer} is {value}, which nobody wrote");
    }
}

/// The watcher saw each acknowledged write once, with its version, and its view ends as the list does.
/// That versions rise, it has checked itself.
fn check_events(run: &Run, told: &[Acknowledged], seen: &Seen) {
    let mut view: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (kind, name, at, value) in &seen.events {
        let known = view.insert(name, (*at, *value)).is_some();
        let expected = if known { "MODIFIED" } else { "ADDED" };
        assert_eq!(kind, expected, "{name} at {at}");
    }
    let events: BTreeSet<(&str, u64)> =
        seen.events.iter().map(|(_, name, at, _)| (name.as_str(), *at)).collect();
    for (writer, told) in told.iter().enumerate() {
        let counter = format!("counter-{writer}");
        let created = told.created.iter().map(|(name, at)| (name.as_str(), *at));
        let counted = told.counted.iter().map(|(_, at)| (counter.as_str(), *at));
        let missed: Vec<_> = created.chain(counted).filter(|write| !events.contains(write)).collect();
        assert!(missed.is_empty(), "the watcher missed {missed:?}");
    }
    let (_, items) = eventually("a list at the end", || run.list());
    let listed: BTreeMap<String, (u64, u64)> =
        items.iter().map(|item| (name(item), (version(item), value(item)))).collect();
    let viewed: BTreeMap<String, (u64, u64)> =
        view.into_iter().map(|(name, found)| (name.to_owned(), found)).collect();
    assert_eq!(viewed, listed, "what the watcher knows and what there is");
}

/// The Deployment is whole on living nodes, the spared node's pods were left alone, and no container runs
/// that belongs to no pod.
fn check_pods(cluster: &Cluster, pods: &[Value], spared: &BTreeMap<String, (Value, Value)>) {
    eventually("all nodes are Ready", || {
        let nodes = cluster.items("nodes");
        (nodes.len() == NODES.len() && nodes.iter().all(is_ready)).then_some(())
    });
    assert_eq!(
        &containers(pods, SPARED)
            .into_iter()
            .filter(|(uid, _)| spared.contains_key(uid))
            .collect::<BTreeMap<_, _>>(),
        spared,
        "pods that no fault touched"
    );
    eventually("each container that runs belongs to a pod", || {
        let shims = cluster.shims();
        let pods = cluster.items("pods -A");
        let uids: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
        let strays = shims.iter().filter(|shim| !uids.iter().any(|uid| shim.contains(uid)));
        (strays.count() == 0).then_some(())
    });
}
