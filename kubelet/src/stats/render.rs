//! Statistics in upstream's forms: the kubelet's summary, and Prometheus' text.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::pod::{PodRef, PodUid};
use crate::stats::{ContainerUsage, Operations, Stall, Stalls, Stats, Usage, Waited};

/// One pod's containers, each with its rate.
type ByPod<'a> = BTreeMap<&'a PodUid, Vec<(&'a ContainerUsage, Option<u64>)>>;

fn by_pod(stats: &Stats) -> ByPod<'_> {
    let mut pods = ByPod::new();
    for (container, rate) in stats.sample.containers.iter().zip(&stats.rates) {
        pods.entry(&container.pod.uid).or_default().push((container, *rate));
    }
    pods
}

/// What several use together.
fn sum<'a>(parts: impl Iterator<Item = &'a Usage>) -> Usage {
    parts.fold(Usage::default(), |sum, part| Usage {
        cpu: sum.cpu + part.cpu,
        memory: sum.memory + part.memory,
        working_set: sum.working_set + part.working_set,
        rss: sum.rss + part.rss,
        processes: sum.processes + part.processes,
    })
}

/// What something or somebody uses and waits for, as the members that all levels of the summary have.
fn parts(at: Timestamp, usage: &Usage, rate: Option<u64>, stalls: &Stalls) -> Map<String, Value> {
    let mut parts = Map::new();
    let mut cpu = json!({ "time": time(at), "usageCoreNanoSeconds": usage.cpu.as_nanos() as u64 });
    if let Some(rate) = rate {
        cpu["usageNanoCores"] = json!(rate);
    }
    for (name, mut part, waited) in [("cpu", cpu, stalls.cpu), ("memory", memory(at, usage), stalls.memory)] {
        if let Some(waited) = waited {
            part["psi"] = psi(&waited);
        }
        parts.insert(name.to_owned(), part);
    }
    if let Some(waited) = stalls.io {
        parts.insert("io".to_owned(), json!({ "time": time(at), "psi": psi(&waited) }));
    }
    parts
}

/// Upstream hands the kernel's total on as it is.
fn psi(waited: &Waited) -> Value {
    let stall = |Stall { total, averages }: &Stall| {
        let [avg10, avg60, avg300] = averages.map(|average| average as f64 / 100.0);
        json!({ "total": total, "avg10": avg10, "avg60": avg60, "avg300": avg300 })
    };
    json!({ "full": stall(&waited.full), "some": stall(&waited.some) })
}

fn with(mut value: Value, parts: Map<String, Value>) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.extend(parts);
    }
    value
}

fn memory(at: Timestamp, usage: &Usage) -> Value {
    let Usage { memory, working_set, rss, .. } = usage;
    json!({ "time": time(at), "usageBytes": memory, "workingSetBytes": working_set, "rssBytes": rss })
}

/// Whole seconds, as Kubernetes writes times.
fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// The body of `/stats/summary`.
pub fn summary(node: &str, stats: &Stats) -> Value {
    let (at, machine) = (stats.sample.at, &stats.sample.machine);
    let mut own = parts(at, &machine.usage, stats.machine_rate, &machine.stalls);
    own["memory"]["availableBytes"] = json!(machine.memory.saturating_sub(machine.usage.working_set));
    let node = json!({ "nodeName": node, "startTime": time(machine.booted_at) });
    let pods: Vec<Value> = by_pod(stats).into_values().map(|containers| pod(at, &containers)).collect();
    json!({ "node": with(node, own), "pods": pods })
}

fn pod(at: Timestamp, containers: &[(&ContainerUsage, Option<u64>)]) -> Value {
    let PodRef { namespace, name, uid } = &containers[0].0.pod;
    let start = containers.iter().map(|(container, _)| container.started_at).min().unwrap_or(at);
    let total = sum(containers.iter().map(|(container, _)| &container.usage));
    let rate = containers.iter().map(|(_, rate)| *rate).sum::<Option<u64>>();
    let of_container = |(container, rate): &(&ContainerUsage, Option<u64>)| {
        let own = json!({ "name": container.container.0, "startTime": time(container.started_at) });
        with(own, parts(at, &container.usage, *rate, &container.stalls))
    };
    let own = json!({
        "podRef": { "name": name, "namespace": namespace, "uid": uid.0 },
        "startTime": time(start),
        "containers": containers.iter().map(of_container).collect::<Vec<_>>(),
    });
    with(own, parts(at, &total, rate, &containers[0].0.pod_stalls))
}

/// Lines of Prometheus' text format.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Labels' values are names of Kubernetes, or quoted by `Debug`'s rules, which are Prometheus' for them.
    pub(super) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    #[cfg(test)]
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// The body of `/metrics/resource`.
pub fn resource(stats: &Stats) -> String {
    let mut text = Text::default();
    let (machine, containers) = (&stats.sample.machine, &stats.sample.containers);
    let pods: Vec<_> = by_pod(stats)
        .into_values()
        .map(|containers| {
            let usage = sum(containers.iter().map(|(container, _)| &container.usage));
            (&containers[0].0.pod, usage)
        })
        .collect();
    type Number = (&'static str, &'static str, &'static str, fn(&Usage) -> f64);
    const NUMBERS: [Number; 2] = [
        ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in core-seconds", |usage| {
            usage.cpu.as_secs_f64()
        }),
        ("memory_working_set_bytes", "gauge", "Current working set in bytes", |usage| {
            usage.working_set as f64
        }),
    ];
    for (number, kind, help, value) in NUMBERS {
        let name = format!("container_{number}");
        text.family(&name, kind, help);
        for container in containers {
            let PodRef { namespace, name: pod, .. } = &container.pod;
            let labels = [("container", &*container.container.0), ("namespace", namespace), ("pod", pod)];
            text.line(&name, &labels, value(&container.usage));
        }
        let name = format!("node_{number}");
        text.family(&name, kind, help);
        text.line(&name, &[], value(&machine.usage));
        let name = format!("pod_{number}");
        text.family(&name, kind, help);
        for (pod, usage) in &pods {
            text.line(&name, &[("namespace", &pod.namespace), ("pod", &pod.name)], value(usage));
        }
    }
    start_times(&mut text, containers);
    text.family("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics");
    text.line("resource_scrape_error", &[], 0);
    text.0
}

fn start_times(text: &mut Text, containers: &[ContainerUsage]) {
    let name = "container_start_time_seconds";
    text.family(name, "gauge", "Start time of the container since unix epoch in seconds");
    for container in containers {
        let PodRef { namespace, name: pod, .. } = &container.pod;
        let labels = [("container", &*container.container.0), ("namespace", namespace), ("pod", pod)];
        text.line(name, &labels, container.started_at.as_millisecond() as f64 / 1e3);
    }
}

/// A number of a container: its name, its kind, what it is, and where it stands; `None` where it isn't counted.
type OfContainer = (&'static str, &'static str, &'static str, fn(&ContainerUsage) -> Option<f64>);

/// What cAdvisor tells of containers.
const OF_CONTAINERS: [OfContainer; 10] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        |container| Some(container.usage.cpu.as_secs_f64()),
    ),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |container| Some(container.usage.memory as f64),
    ),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |container| Some(container.usage.rss as f64)),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |container| {
        Some(container.usage.working_set as f64)
    }),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |container| container.stalls.cpu.map(|waited| seconds(waited.some)),
    ),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |container| container.stalls.cpu.map(|waited| seconds(waited.full)),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |container| container.stalls.memory.map(|waited| seconds(waited.some)),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |container| container.stalls.memory.map(|waited| seconds(waited.full)),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |container| container.stalls.io.map(|waited| seconds(waited.some)),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |container| container.stalls.io.map(|waited| seconds(waited.full)),
    ),
];

fn seconds(stall: Stall) -> f64 {
    stall.total as f64 / 1e6
}

/// The body of `/metrics/cadvisor`: what dashboards ask cAdvisor for, as far as it is known here.
pub fn cadvisor(stats: &Stats) -> String {
    let mut text = Text::default();
    let (machine, containers) = (&stats.sample.machine, &stats.sample.containers);
    for (name, kind, help, value) in OF_CONTAINERS {
        text.family(name, kind, help);
        for container in containers {
            let Some(value) = value(container) else { continue };
            let PodRef { namespace, name: pod, .. } = &container.pod;
            let id = format!("/{}", container.group);
            let labels = [
                ("container", &*container.container.0),
                ("id", &id),
                ("name", &container.id.0),
                ("namespace", namespace),
                ("pod", pod),
            ];
            text.line(name, &labels, value);
        }
    }
    text.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    text.line("machine_cpu_cores", &[], machine.cores);
    text.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    text.line("machine_memory_bytes", &[], machine.memory);
    text.0
}

/// The body of `/metrics`: the agent's own.
pub fn own(node: &str, stats: &Stats, pods: usize, operations: &Operations) -> String {
    let mut text = Text::default();
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    text.line("kubelet_node_name", &[("node", node)], 1);
    text.family("kubelet_running_pods", "gauge", "Number of pods that are tended");
    text.line("kubelet_running_pods", &[], pods);
    text.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    text.line("kubelet_running_containers", &[("container_state", "running")], stats.sample.containers.len());
    operations.render(&mut text);
    text.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pod::{ContainerId, ContainerName};
    use crate::stats::{MachineUsage, Sample};

    fn stats() -> Stats {
        let usage = |cpu, working_set| Usage {
            cpu: Duration::from_millis(cpu),
            memory: working_set + 1,
            working_set,
            rss: working_set / 2,
            processes: 1,
        };
        let container = |name: &str, cpu, memory| ContainerUsage {
            id: ContainerId(format!("id-{name}")),
            pod: PodRef {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                uid: PodUid("u1".to_owned()),
            },
            container: ContainerName(name.to_owned()),
            group: format!("kubepods/podu1/id-{name}"),
            started_at: Timestamp::from_second(50).expect("small"),
            usage: usage(cpu, memory),
            stalls: Stalls::default(),
            pod_stalls: Stalls::default(),
        };
        let machine =
            MachineUsage { usage: usage(9_000, 600), memory: 1000, cores: 2, ..MachineUsage::default() };
        let sample = Sample {
            at: Timestamp::from_second(100).expect("small"),
            machine,
            containers: vec![container("app", 1_500, 100), container("side", 500, 20)],
        };
        Stats { sample, machine_rate: Some(7), rates: vec![Some(30), Some(12)] }
    }

    #[test]
    fn the_summary_is_that_of_upstream() {
        let summary = summary("n1", &stats());
        assert_eq!(summary["node"]["memory"]["availableBytes"], 400);
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 7);
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({ "name": "web", "namespace": "shop", "uid": "u1" }));
        assert_eq!(pod["cpu"]["usageNanoCores"], 42);
        assert_eq!(pod["containers"][1]["memory"]["workingSetBytes"], 20);
        assert_eq!(pod["memory"]["usageBytes"], 122);
        assert_eq!(pod["containers"][0]["startTime"], "1970-01-01T00:00:50Z");
        assert_eq!(pod["containers"][0]["cpu"]["usageCoreNanoSeconds"], 1_500_000_000);
        assert_eq!((&pod["cpu"]["psi"], &pod["io"]), (&Value::Null, &Value::Null), "not counted");
        let unknown = Stats { rates: vec![None, Some(1)], ..stats() };
        assert_eq!(super::summary("n1", &unknown)["pods"][0]["cpu"]["usageNanoCores"], Value::Null);
    }

    #[test]
    fn what_was_waited_for_stands_beside_what_was_used() {
        let mut stats = stats();
        let some = Stall { total: 70, averages: [125, 50, 1] };
        let waited = Some(Waited { some, full: Stall::default() });
        stats.sample.containers[0].stalls = Stalls { cpu: waited, memory: None, io: waited };
        let summary = summary("n1", &stats);
        let container = &summary["pods"][0]["containers"][0];
        let none = json!({ "total": 0, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0 });
        let psi =
            json!({ "full": none, "some": { "total": 70, "avg10": 1.25, "avg60": 0.5, "avg300": 0.01 } });
        assert_eq!((&container["cpu"]["psi"], &container["io"]["psi"]), (&psi, &psi));
        assert_eq!(container["memory"]["psi"], Value::Null);
        let line = "container_pressure_cpu_waiting_seconds_total{container=\"app\",id=\"/kubepods/podu1/id-app\",\
                    name=\"id-app\",namespace=\"shop\",pod=\"web\"} 0.00007";
        let text = cadvisor(&stats);
        assert!(text.lines().any(|found| found == line), "{text}");
    }

    #[test]
    fn prometheus_reads_the_rest() {
        let text = resource(&stats());
        for line in [
            "container_cpu_usage_seconds_total{container=\"app\",namespace=\"shop\",pod=\"web\"} 1.5",
            "node_memory_working_set_bytes 600",
            "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 2",
            "container_start_time_seconds{container=\"side\",namespace=\"shop\",pod=\"web\"} 50",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(cadvisor(&stats()).contains("id=\"/kubepods/podu1/id-app\",name=\"id-app\""));
        let own = own("n1", &stats(), 3, &Operations::default());
        assert!(own.contains("kubelet_running_containers{container_state=\"running\"} 2\n"), "{own}");
    }
}
