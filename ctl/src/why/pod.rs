//! Why a pod is where it is in its life: not admitted to the queue, without a node, or not running there.

use jiff::Timestamp;
use scheduler::diagnosis::{Diagnosis, NodeExplanation};
use serde_json::{Value, json};

use super::answer::{Answer, place};
use super::placement::{self, Site};
use super::view::{self, View, condition, is_true, number, text};
use super::{Question, change, claim, preemption};

/// A decision of the scheduler, found in the journal, with the cluster as it was then.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The revision that its outcome was written at.
    pub revision: String,
    /// When.
    pub time: String,
    /// By whom: the agent, or the user.
    pub by: String,
    /// The pod before it.
    pub pod: Value,
    /// The cluster before it.
    pub view: View,
}

/// Why the pod is as it is.
pub fn why(question: Question<'_>) -> Answer {
    let Question { object: pod, view, now, .. } = question;
    let mut answer = Answer::about(pod, "");
    match obstacle(pod, view) {
        _ if !text(pod, "/spec/nodeName").is_empty() => on_node(&mut answer, question),
        Some(obstacle) => answer.verdict = obstacle,
        None => waiting(&mut answer, question),
    }
    answer.events(pod, view, now);
    answer
}

/// The verdict on a pod in few words, for an answer about its owner.
pub fn in_short(pod: &Value, view: &View, now: Timestamp) -> String {
    let question = Question { object: pod, view, decision: None, now };
    if api::object::is_deleting(pod) {
        return super::terminating::why(pod, view, now).verdict;
    }
    why(question).verdict
}

/// What keeps a pod from being looked at by its scheduler.
fn obstacle(pod: &Value, view: &View) -> Option<String> {
    let gates = pod["spec"]["schedulingGates"].as_array().into_iter().flatten();
    let gates: Vec<String> = gates.map(|gate| text(gate, "/name").to_owned()).collect();
    if !gates.is_empty() {
        let gates = crate::text::and(&gates);
        return Some(format!("waits behind its scheduling gates: whoever set {gates} must remove them"));
    }
    claims(pod).find_map(|name| {
        let namespace = api::object::namespace(pod);
        let Some(claim) = view.get("PersistentVolumeClaim", namespace, &name) else {
            return Some(format!("waits for its volume: persistentvolumeclaim {name} doesn't exist"));
        };
        let answer = claim::why(claim, view);
        let stuck = text(claim, "/status/phase") != "Bound" && !claim::waits_for_pods(claim, view);
        stuck.then(|| format!("waits for its volume: {} {}", answer.object, answer.verdict))
    })
}

/// The names of the claims that a pod uses.
pub fn claims(pod: &Value) -> impl Iterator<Item = String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| {
        let named = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str);
        let own = || format!("{}-{}", api::object::name(pod), text(volume, "/name"));
        named.map(str::to_owned).or_else(|| volume.get("ephemeral").map(|_| own()))
    })
}

fn waiting(answer: &mut Answer, question: Question<'_>) {
    let Question { object: pod, view, decision, now } = question;
    let site = Site::of(view);
    let judged = site.judge(pod, &placement::Edits::default());
    answer.verdict = verdict(pod, &judged);
    decided(answer, pod, decision, now);
    answer.lines("Profile", profile(pod, view).into_iter().collect());
    answer.table("Nodes, by the scheduler's rules", &NODES, placement::rows(&site, pod, &judged));
    answer.lines("Queue", vec![queue(pod, view)]);
    if placement::feasible(&judged).next().is_none() {
        let candidates = preemption::excluded(pod).map_or_else(
            || preemption::rows(&site, pod, view),
            |reason| vec![vec![String::new(), reason, String::new()]],
        );
        answer.table("Preemption", &["NODE", "PODS THAT WOULD GO", "BUDGETS IN THE WAY"], candidates);
        change::suggest(answer, &site, pod, &judged);
    }
    since(answer, pod, decision, &judged);
}

const NODES: [&str; 4] = ["NODE", "VERDICT", "RULE", "WHY"];

fn verdict(pod: &Value, judged: &[NodeExplanation]) -> String {
    let fitting: Vec<String> = placement::feasible(judged).map(|node| node.node.to_string()).collect();
    if fitting.is_empty() {
        let first = judged.iter().filter_map(|node| node.rejections.first().cloned());
        return format!("waits for a node: {}", Diagnosis::new(first));
    }
    let scheduler = scheduler_name(pod);
    format!("waits for a node and fits on {}: {scheduler} has not bound it yet", crate::text::and(&fitting))
}

fn scheduler_name(pod: &Value) -> &str {
    match text(pod, "/spec/schedulerName") {
        "" => scheduler::pod::DEFAULT_SCHEDULER,
        name => name,
    }
}

/// By which profile the pod is placed; `None` if that is upstream's as far as anybody knows.
fn profile(pod: &Value, view: &View) -> Option<String> {
    let name = scheduler_name(pod);
    match &view.profiles {
        Some(profiles) => Some(match profiles.get(name) {
            Some(profile) => format!("{name}: {}", **profile),
            None => format!(
                "{name}: not in the file; another scheduler's, whose rules are taken to be upstream's"
            ),
        }),
        None => (name != scheduler::pod::DEFAULT_SCHEDULER).then(|| {
            format!(
                "{name}: its rules are taken to be upstream's; --scheduler-config FILE says what they are"
            )
        }),
    }
}

/// What the scheduler itself has said.
fn decided(answer: &mut Answer, pod: &Value, decision: Option<&Decision>, now: Timestamp) {
    let scheduled = condition(pod, "PodScheduled");
    let mut lines = Vec::new();
    if let Some(said) = scheduled.filter(|condition| condition["status"] == "False") {
        let age = api::time::from_value(said.get("lastTransitionTime")).map(|time| api::time::age(time, now));
        let age = age.map(|age| format!(" ({age} ago)")).unwrap_or_default();
        lines.push(format!("{}{age}: {}", text(said, "/reason"), text(said, "/message")));
    }
    if let Some(decision) = decision {
        let Decision { revision, by, time, .. } = decision;
        lines.push(format!("written at revision {revision} by {by}, {time}"));
    }
    answer.lines("What the scheduler decided", lines);
}

/// The pods that are looked at before this one: of higher priority, then older, as the queue orders them.
fn queue(pod: &Value, view: &View) -> String {
    let scheduler = text(pod, "/spec/schedulerName");
    let waits = |other: &&Value| {
        text(other, "/spec/nodeName").is_empty()
            && text(other, "/spec/schedulerName") == scheduler
            && other["spec"]["schedulingGates"].as_array().is_none_or(Vec::is_empty)
            && !api::object::is_deleting(other)
            && !matches!(text(other, "/status/phase"), "Succeeded" | "Failed")
    };
    let rank =
        |pod: &Value| (-number(pod, "/spec/priority"), api::object::creation_timestamp(pod), place(pod));
    let mut waiting: Vec<&Value> = view.all("Pod").iter().filter(waits).collect();
    waiting.sort_by_cached_key(|pod| rank(pod));
    let ahead: Vec<String> =
        waiting.iter().take_while(|other| rank(other) < rank(pod)).map(|pod| place(pod)).collect();
    let parked = condition(pod, "PodScheduled").is_some_and(|said| said["reason"] == "Unschedulable");
    let state = if parked {
        "tried, and tried again when something changes that may help it"
    } else {
        "not tried yet"
    };
    let after = ahead.last().map(|last| format!(", after {last}")).unwrap_or_default();
    format!("{} of {} that wait{after}; {state}", ahead.len() + 1, waiting.len().max(ahead.len() + 1))
}

/// What is otherwise now than when it was decided.
fn since(answer: &mut Answer, pod: &Value, decision: Option<&Decision>, now: &[NodeExplanation]) {
    let Some(decision) = decision else { return };
    let then = Site::of(&decision.view).judge(&decision.pod, &placement::Edits::default());
    let told = |judged: Option<&NodeExplanation>| match judged {
        None => "not there".to_owned(),
        Some(node) if node.rejections.is_empty() => "accepted".to_owned(),
        Some(node) => {
            let reasons = node.rejections.iter().flat_map(|rejection| &rejection.reasons);
            reasons.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
    };
    let find = |judged: &[NodeExplanation], name: &scheduler::name::NodeName| {
        judged.iter().find(|node| node.node == *name).cloned()
    };
    let mut names: Vec<_> = then.iter().chain(now).map(|node| node.node.clone()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter_map(|name| {
        let (before, after) = (told(find(&then, &name).as_ref()), told(find(now, &name).as_ref()));
        (before != after).then(|| vec![name.to_string(), before, after])
    });
    let mut rows: Vec<Vec<String>> = changed.collect();
    if decision.pod["spec"] != pod["spec"] {
        rows.push(vec!["(the pod)".to_owned(), "as it was".to_owned(), "its spec was changed".to_owned()]);
    }
    answer.table("Changed since that decision", &["NODE", "THEN", "NOW"], rows);
}

fn on_node(answer: &mut Answer, question: Question<'_>) {
    let Question { object: pod, view, decision, .. } = question;
    let name = text(pod, "/spec/nodeName");
    answer.verdict = running(pod, view, name);
    answer.table("Containers", &["CONTAINER", "STATE", "WHY"], containers(pod));
    if let Some(decision) = decision {
        let Decision { revision, by, time, view, pod } = decision;
        answer.lines(
            "What the scheduler decided",
            vec![format!("bound to {name} at revision {revision} by {by}, {time}")],
        );
        let site = Site::of(view);
        let judged = site.judge(pod, &placement::Edits::default());
        answer.table(
            "Nodes at that time, by the scheduler's rules",
            &NODES,
            placement::rows(&site, pod, &judged),
        );
    }
}

/// What a pod with a node is doing there.
fn running(pod: &Value, view: &View, node: &str) -> String {
    let phase = text(pod, "/status/phase");
    let Some(object) = view.get("Node", "", node) else {
        return format!("is bound to node {node}, which doesn't exist");
    };
    let node_ready = condition(object, "Ready");
    if phase != "Succeeded" && phase != "Failed" && !is_true(object, "Ready") {
        let said = node_ready.map_or("it never said that it is ready", |ready| text(ready, "/message"));
        return format!("is on node {node}, which isn't ready: {said}");
    }
    match phase {
        "Succeeded" => format!("ran to its end on {node}"),
        "Failed" => format!("failed on {node}: {}", failure(pod)),
        _ if is_true(pod, "Ready") => format!("runs on {node} and is ready"),
        "Running" => format!("runs on {node} but isn't ready: {}", unready(pod)),
        _ => format!("is on node {node} but not running yet: {}", starting(pod)),
    }
}

fn failure(pod: &Value) -> String {
    let said = [text(pod, "/status/reason"), text(pod, "/status/message")];
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    if said.is_empty() { first_trouble(pod, "a container ended with an error") } else { said.join(": ") }
}

fn unready(pod: &Value) -> String {
    let gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
    let gates = gates.map(|gate| text(gate, "/conditionType")).find(|gate| !is_true(pod, gate));
    match gates {
        Some(gate) => format!("its readiness gate {gate} isn't True"),
        None => first_trouble(pod, "a readiness probe doesn't succeed"),
    }
}

fn starting(pod: &Value) -> String {
    let initialized = condition(pod, "Initialized").filter(|condition| condition["status"] == "False");
    let default = initialized.map_or("its containers are being started", |said| text(said, "/message"));
    let default = if default.is_empty() { "its init containers run" } else { default };
    first_trouble(pod, default)
}

fn first_trouble(pod: &Value, default: &str) -> String {
    let rows = containers(pod);
    let troubled = rows.iter().find(|row| row[1] != "running" && row[2] != "-");
    troubled.map_or_else(|| default.to_owned(), |row| format!("container {} {}", row[0], row[2]))
}

/// A row for each container whose state says something.
fn containers(pod: &Value) -> Vec<Vec<String>> {
    let statuses = ["initContainerStatuses", "containerStatuses"].into_iter();
    statuses.flat_map(|field| pod["status"][field].as_array().into_iter().flatten()).map(container).collect()
}

fn container(status: &Value) -> Vec<String> {
    let state = status["state"].as_object().and_then(|state| state.iter().next());
    let (name, detail) = state.map_or(("waiting", &Value::Null), |(name, detail)| (name.as_str(), detail));
    let restarts = number(status, "/restartCount");
    let last = &status["lastState"]["terminated"];
    let mut words: Vec<String> = Vec::new();
    match name {
        "waiting" => words.push(format!("waits: {}", said(detail))),
        "terminated" => words.push(format!("ended with exit code {}: {}", detail["exitCode"], said(detail))),
        _ if status["ready"] == json!(false) => words.push("runs but isn't ready".to_owned()),
        _ => {}
    }
    if restarts > 0 && !last.is_null() {
        let times = crate::text::count(usize::try_from(restarts).unwrap_or(0), "restart");
        words.push(format!(
            "{times}, the last time it ended with exit code {} ({})",
            last["exitCode"],
            said(last)
        ));
    }
    let why = if words.is_empty() { "-".to_owned() } else { words.join("; ") };
    vec![view::text(status, "/name").to_owned(), name.to_owned(), why]
}

fn said(detail: &Value) -> String {
    let parts = [text(detail, "/reason"), text(detail, "/message")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "no reason is given".to_owned() } else { parts.join(": ") }
}
