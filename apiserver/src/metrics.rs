//! Metrics in Prometheus' text format, under upstream's names.
//!
//! Counters are atomics behind a map that is locked only to find or add a series; a request's path through
//! here is one read lock. The number of series is bounded: labels come from the registry and the list of
//! verbs, never from what a client sent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::request::RequestInfo;

/// Upper bounds of the latency buckets in seconds, those of upstream that tell something here.
const BUCKETS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];

/// The server's metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: RwLock<BTreeMap<(Labels, u16), Arc<AtomicU64>>>,
    durations: RwLock<BTreeMap<Labels, Arc<Histogram>>>,
    watchers: RwLock<BTreeMap<Labels, Arc<AtomicI64>>>,
    reading: AtomicI64,
    mutating: AtomicI64,
}

/// What a request is counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// A request that is being served; counted as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    metrics: Arc<Metrics>,
    reading: bool,
}

/// A watch that is open; counted until it is dropped.
#[derive(Debug)]
pub struct OpenWatch(Arc<AtomicI64>);

impl Metrics {
    /// Counts a request as in flight. Watches are counted by [`Metrics::watch`] instead, as upstream.
    pub fn enter(self: &Arc<Self>, info: &RequestInfo) -> InFlight {
        let reading = info.verb.is_read();
        self.in_flight(reading).fetch_add(1, Ordering::Relaxed);
        InFlight { metrics: self.clone(), reading }
    }

    /// Counts a request that was answered with `code` after `duration`.
    pub fn answered(&self, info: &RequestInfo, code: u16, duration: Duration) {
        let labels = Labels::of(info);
        series(&self.durations, &labels).observe(duration);
        series(&self.requests, &(labels, code)).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an open watch.
    pub fn watch(&self, info: &RequestInfo) -> OpenWatch {
        let count = series(&self.watchers, &Labels::of(info));
        count.fetch_add(1, Ordering::Relaxed);
        OpenWatch(count)
    }

    /// All metrics in Prometheus' text format. `store_revision` and `has_leader` are the store's state.
    pub fn render(&self, store_revision: u64, has_leader: bool) -> Text {
        let mut text = Text::default();
        self.render_requests(&mut text);
        self.render_durations(&mut text);
        text.family("apiserver_current_inflight_requests", "gauge", "Requests that are being served.");
        for (kind, count) in [("mutating", &self.mutating), ("readOnly", &self.reading)] {
            text.sample(
                "apiserver_current_inflight_requests",
                &[("request_kind", kind)],
                count.load(Ordering::Relaxed),
            );
        }
        text.family("apiserver_longrunning_requests", "gauge", "Watches that are open.");
        for (labels, count) in self.watchers.read().iter() {
            text.sample("apiserver_longrunning_requests", &labels.pairs(), count.load(Ordering::Relaxed));
        }
        text.family("amoeba_store_revision", "gauge", "The newest revision that this member has applied.");
        text.sample("amoeba_store_revision", &[], store_revision);
        text.family("amoeba_store_has_leader", "gauge", "Whether this member knows a leader.");
        text.sample("amoeba_store_has_leader", &[], u8::from(has_leader));
        text
    }

    fn render_requests(&self, text: &mut Text) {
        text.family("apiserver_request_total", "counter", "Requests that were answered.");
        for ((labels, code), count) in self.requests.read().iter() {
            let code = code.to_string();
            let mut pairs = labels.pairs().to_vec();
            pairs.push(("code", &code));
            text.sample("apiserver_request_total", &pairs, count.load(Ordering::Relaxed));
        }
    }

    fn render_durations(&self, text: &mut Text) {
        let name = "apiserver_request_duration_seconds";
        text.family(name, "histogram", "Time to the answer; of a watch, to its first byte.");
        for (labels, histogram) in self.durations.read().iter() {
            histogram.render(text, name, &labels.pairs());
        }
    }

    fn in_flight(&self, reading: bool) -> &AtomicI64 {
        if reading { &self.reading } else { &self.mutating }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight(self.reading).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Labels {
    /// Unknown resources and paths share one series each verb: clients must not be able to make series.
    fn of(info: &RequestInfo) -> Self {
        let Some(resource) = &info.resource else {
            return Self { verb: info.verb.as_str(), ..Self::default() };
        };
        Self {
            verb: info.verb.as_str(),
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.plural.clone(),
            subresource: info.subresource_row().map(|row| row.name.clone()).unwrap_or_default(),
        }
    }

    fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("verb", self.verb),
            ("group", &self.group),
            ("version", &self.version),
            ("resource", &self.resource),
            ("subresource", &self.subresource),
        ]
    }
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Buckets are cumulative in the format and single in memory, so that observing touches one.
    fn render(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        let count = self.count.load(Ordering::Relaxed);
        let mut below = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            text.bucket(name, labels, &bound.to_string(), below);
        }
        text.bucket(name, labels, "+Inf", count);
        let seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        text.sample(&format!("{name}_sum"), labels, seconds);
        text.sample(&format!("{name}_count"), labels, count);
    }
}

/// Appends how many objects are stored, by resource.
pub fn objects(text: &mut Text, counts: &[(bytes::Bytes, usize)]) {
    let name = "apiserver_storage_objects";
    text.family(name, "gauge", "Objects that are stored, by resource.");
    let mut rows: Vec<(String, usize)> =
        counts.iter().map(|(prefix, count)| (resource(prefix), *count)).collect();
    rows.sort();
    for (resource, count) in rows {
        text.sample(name, &[("resource", &resource)], count);
    }
}

/// `pods`, `deployments.apps`, of the prefix of its keys.
fn resource(prefix: &[u8]) -> String {
    let path = String::from_utf8_lossy(prefix);
    let mut parts = path.trim_matches('/').split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("core"), Some(plural)) => plural.to_owned(),
        (Some(group), Some(plural)) => format!("{plural}.{group}"),
        _ => path.into_owned(),
    }
}

/// Appends what the kernel says of this process, under the names that every Prometheus client uses.
pub fn process(text: &mut Text) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The name in parentheses may hold spaces; what follows is numbers.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    const TICKS: f64 = 100.0; // USER_HZ, the same on every Linux that we run on.
    const PAGE: f64 = 4096.0;
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let rows = [
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time spent, user and system.",
            (field(14) + field(15)) / TICKS,
        ),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", field(24) * PAGE),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory.", field(23)),
        ("process_open_fds", "gauge", "Open file descriptors.", open as f64),
        ("process_threads", "gauge", "Threads.", field(20)),
    ];
    for (name, kind, help, value) in rows {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
}

/// The series under `key`, made if it is new.
fn series<K: Ord + Clone, V: Default>(map: &RwLock<BTreeMap<K, Arc<V>>>, key: &K) -> Arc<V> {
    if let Some(value) = map.read().get(key) {
        return value.clone();
    }
    map.write().entry(key.clone()).or_default().clone()
}

/// The exposition in the making. Writing to a String can't fail.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Begins a family of series.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One series of the family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn bucket(&mut self, name: &str, labels: &[(&str, &str)], bound: &str, count: u64) {
        let mut labels = labels.to_vec();
        labels.push(("le", bound));
        self.sample(&format!("{name}_bucket"), &labels, count);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::registry::Registry;

    fn info(path: &str, query: &str) -> RequestInfo {
        RequestInfo::parse(&Method::GET, path, query, &Registry::builtin())
    }

    #[test]
    fn requests_are_counted_under_what_the_registry_knows() {
        let metrics = Arc::new(Metrics::default());
        let pods = info("/api/v1/namespaces/a/pods", "");
        metrics.answered(&pods, 200, Duration::from_millis(3));
        metrics.answered(&pods, 200, Duration::from_secs(70));
        metrics.answered(&info("/apis/made.up/v1/things", ""), 404, Duration::ZERO);
        let watching = metrics.watch(&info("/api/v1/pods", "watch=1"));
        let serving = metrics.enter(&pods);
        crate::golden::check("metrics/busy.txt", &metrics.render(7, true).into_string());
        drop((watching, serving));
        let idle = metrics.render(7, true).into_string();
        assert!(idle.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0"), "{idle}");
        assert!(idle.contains("resource=\"pods\",subresource=\"\"} 0"), "{idle}");
    }
}
