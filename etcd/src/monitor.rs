//! What monitors and load balancers ask by plain HTTP, as etcd 3.5 answers it: `/health`, `/metrics`, `/version`.
//!
//! The same answers over HTTP/1.1 and HTTP/2.

use std::fmt::Write as _;

use http::{Method, StatusCode, Uri};
use store::AlarmKind;
use store::kv::{Consistency, KeyRange, Kv, RangeRequest};

use crate::maintenance::VERSION;
use crate::member::Member;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub kind: &'static str,
    /// Its body.
    pub body: String,
}

impl Answer {
    fn json(status: StatusCode, body: String) -> Self {
        Self { status, kind: "application/json", body }
    }

    fn text(status: StatusCode, body: String) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body }
    }
}

/// Answers a request that isn't gRPC.
pub async fn answer(member: &Member, method: &Method, uri: &Uri) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".into());
    }
    match uri.path() {
        "/health" => health(member, uri.query().unwrap_or_default()).await,
        "/metrics" => metrics(member),
        "/version" => version(),
        _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
    }
}

fn version() -> Answer {
    let body = format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"3.5.0"}}"#);
    Answer::json(StatusCode::OK, body)
}

async fn health(member: &Member, query: &str) -> Answer {
    let (healthy, reason) = match trouble(member, query).await {
        None => ("true", String::new()),
        Some(reason) => ("false", reason),
    };
    let status = if healthy == "true" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::json(status, format!(r#"{{"health":"{healthy}","reason":"{reason}"}}"#))
}

/// Why this member should get no requests. `exclude=NOSPACE` overlooks an alarm, `serializable=true` asks
/// about this member alone.
async fn trouble(member: &Member, query: &str) -> Option<String> {
    let asked = |word: &str| query.split('&').any(|pair| pair.eq_ignore_ascii_case(word));
    let alarms = match member.store.alarms() {
        Ok(alarms) => alarms,
        Err(error) => return Some(quotable(&error.to_string())),
    };
    let named = |kind| match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    let raised = alarms.into_iter().map(|alarm| named(alarm.kind));
    if let Some(alarm) = raised.into_iter().find(|alarm| !asked(&format!("exclude={alarm}"))) {
        return Some(format!("ALARM {alarm}"));
    }
    let alone = asked("serializable=true");
    if !alone && member.store.leadership().borrow().is_none() {
        return Some("RAFT NO LEADER".into());
    }
    let consistency = if alone { Consistency::Serializable } else { Consistency::Linearizable };
    let request = RangeRequest { limit: 1, consistency, ..RangeRequest::new(KeyRange::key("health")) };
    let read = member.store.range(request).await;
    read.err().map(|error| quotable(&format!("RANGE ERROR:{error}")))
}

/// For the inside of a JSON string.
fn quotable(text: &str) -> String {
    text.chars().map(|c| if c == '"' || c == '\\' || c.is_control() { ' ' } else { c }).collect()
}

/// In Prometheus' text format, by etcd's names where it has one.
fn metrics(member: &Member) -> Answer {
    let status = member.store.status();
    let mut page = Page::default();
    let flag = |value: bool| u64::from(value);
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", flag(status.leader.is_some()));
    let leads = status.leader == Some(status.member);
    page.gauge("etcd_server_is_leader", "Whether this member leads.", flag(leads));
    let learns = !status.voters.contains(&status.member);
    page.gauge("etcd_server_is_learner", "Whether this member has no vote.", flag(learns));
    let id = format!(r#"etcd_server_id{{server_id="{:x}"}}"#, status.member.0);
    page.gauge(&id, "This member.", 1);
    page.gauge(&format!(r#"etcd_server_version{{server_version="{VERSION}"}}"#), "What it is to clients.", 1);
    let changes = member.leader_changes.load(std::sync::atomic::Ordering::Relaxed);
    page.counter("etcd_server_leader_changes_seen_total", "Leaders that came after another.", changes);
    page.counter("etcd_server_proposals_applied_total", "The last applied Raft index.", status.applied_index);
    page.gauge("etcd_debugging_mvcc_current_revision", "The newest revision.", status.revision.0);
    let compacted = status.compacted.0;
    page.gauge("etcd_debugging_mvcc_compact_revision", "History up to it is forgotten.", compacted);
    if let Ok(disk) = member.store.disk_use() {
        page.gauge("etcd_mvcc_db_total_size_in_bytes", "What the database takes.", disk.total_bytes);
        let live = disk.in_use_bytes;
        page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "What of it is live, estimated.", live);
    }
    if let Some(memory) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", memory);
    }
    Answer { status: StatusCode::OK, kind: "text/plain; version=0.0.4; charset=utf-8", body: page.text }
}

/// What the whole process takes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn gauge(&mut self, series: &str, help: &str, value: u64) {
        self.series("gauge", series, help, value);
    }

    fn counter(&mut self, series: &str, help: &str, value: u64) {
        self.series("counter", series, help, value);
    }

    fn series(&mut self, kind: &str, series: &str, help: &str, value: u64) {
        let name = series.split('{').next().unwrap_or(series);
        let lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{series} {value}\n");
        self.text.write_str(&lines).expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_prometheus_text() {
        let mut page = Page::default();
        page.gauge(r#"id{server_id="a"}"#, "Which.", 1);
        assert_eq!(page.text, "# HELP id Which.\n# TYPE id gauge\nid{server_id=\"a\"} 1\n");
    }

    #[test]
    fn a_reason_never_ends_its_string() {
        assert_eq!(quotable("a \"b\"\\\n"), "a  b   ");
    }
}
