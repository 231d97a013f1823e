//! The Pod Security Standards: what a pod must not do under `baseline` and `restricted`, per version.
//!
//! Upstream's `k8s.io/pod-security-admission/policy`, as functions over a pod's JSON; the words are upstream's.
//! A check is a function from a pod to what is wrong with it; which checks make a level, and since which
//! version, is the table [`CHECKS`].

mod baseline;
mod restricted;

use std::collections::BTreeMap;
use std::fmt;

pub use baseline::CAPABILITIES;
use serde_json::Value;

/// The labels by which a namespace names its levels begin so.
const PREFIX: &str = "pod-security.kubernetes.io/";
/// The newest minor version of 1.x that we know checks of; later ones are taken for it.
const NEWEST: u16 = 37;

/// How much is forbidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is.
    #[default]
    Privileged,
    /// What is known to lead out of a container.
    Baseline,
    /// All that isn't hardened.
    Restricted,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.as_str() == text)
    }
}

/// A level as of a version; displayed as `restricted:v1.30` or `baseline:latest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    /// How much is forbidden.
    pub level: Level,
    /// Minor version of Kubernetes; `None` is the latest.
    pub minor: Option<u16>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
            None => write!(f, "{}:latest", self.level.as_str()),
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Standard,
    /// Whoever violates it is noted in the audit log.
    pub audit: Standard,
    /// Whoever violates it is warned.
    pub warn: Standard,
}

impl Policy {
    /// The policy in a namespace's labels, and what is wrong with them (a pair of label and message each).
    /// A level that can't be read is restricted when it is enforced, and privileged else.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> (Self, Vec<(String, String)>) {
        let mut wrong = Vec::new();
        let mut standard = |mode: &str, fallback: Level| {
            let (key, version_key) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
            let level = labels.get(&key).map_or(Some(Level::Privileged), |text| Level::parse(text));
            let minor = labels.get(&version_key).map_or(Some(None), |text| parse_version(text));
            if level.is_none() {
                wrong.push((key, "must be one of privileged, baseline, restricted".to_owned()));
            }
            if minor.is_none() {
                wrong.push((version_key, r#"must be "latest" or "v1.x""#.to_owned()));
            }
            Standard { level: level.unwrap_or(fallback), minor: minor.flatten() }
        };
        let enforce = standard("enforce", Level::Restricted);
        let audit = standard("audit", Level::Privileged);
        let mut warn = standard("warn", Level::Privileged);
        // Who enforces and says nothing of warnings is warned of what would be enforced, so that he who
        // writes a Deployment hears what he who makes its pods will be refused.
        if !labels.contains_key(&format!("{PREFIX}warn")) && wrong.is_empty() {
            warn = enforce;
        }
        (Self { enforce, audit, warn }, wrong)
    }

    /// Whether nothing can violate it.
    pub fn allows_all(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }
}

/// `Some(None)` is the latest version, `None` no version.
fn parse_version(text: &str) -> Option<Option<u16>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    (minor == "0" || !minor.starts_with('0')).then_some(())?;
    minor.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    minor.parse().ok().map(Some)
}

/// What is wrong: a reason in few words, and who does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In few words.
    pub reason: String,
    /// Who does what; empty if the reason says it all.
    pub detail: String,
}

impl Violation {
    fn new(reason: &str, detail: String) -> Option<Self> {
        Some(Self { reason: reason.to_owned(), detail })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(&self.reason),
            detail => write!(f, "{} ({detail})", self.reason),
        }
    }
}

/// A check: the pod, and the minor version of the policy.
type Check = fn(&Pod<'_>, u16) -> Option<Violation>;

struct Row {
    level: Level,
    /// The first minor version that has it.
    since: u16,
    /// A check of `restricted` that forbids more is made instead, from this version on.
    overridden_since: Option<u16>,
    check: Check,
}

const fn row(level: Level, since: u16, check: Check) -> Row {
    Row { level, since, overridden_since: None, check }
}

impl Row {
    const fn overridden(self, since: u16) -> Self {
        Self { overridden_since: Some(since), ..self }
    }
}

/// Those of `baseline` first, each level by upstream's identifiers: the order of the messages.
const CHECKS: [Row; 19] = [
    row(Level::Baseline, 0, baseline::app_armor_profile),
    row(Level::Baseline, 0, baseline::capabilities).overridden(22),
    row(Level::Baseline, 0, baseline::host_namespaces),
    row(Level::Baseline, 0, baseline::host_path_volumes).overridden(0),
    row(Level::Baseline, 0, baseline::host_ports),
    row(Level::Baseline, 34, baseline::host_probes),
    row(Level::Baseline, 0, baseline::privileged),
    row(Level::Baseline, 0, baseline::proc_mount).overridden(35),
    row(Level::Baseline, 0, baseline::se_linux_options),
    row(Level::Baseline, 0, baseline::seccomp_profile).overridden(19),
    row(Level::Baseline, 0, baseline::sysctls),
    row(Level::Baseline, 0, baseline::windows_host_process),
    row(Level::Restricted, 8, restricted::allow_privilege_escalation),
    row(Level::Restricted, 22, restricted::capabilities),
    row(Level::Restricted, 35, baseline::proc_mount_always),
    row(Level::Restricted, 0, restricted::volumes),
    row(Level::Restricted, 0, restricted::run_as_non_root),
    row(Level::Restricted, 23, restricted::run_as_user),
    row(Level::Restricted, 19, restricted::seccomp_profile),
];

/// What a pod (or a pod template: anything with `metadata` and `spec`) violates.
pub fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    let minor = standard.minor.unwrap_or(NEWEST).min(NEWEST);
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    let applies = |row: &&Row| {
        let overridden =
            standard.level == Level::Restricted && row.overridden_since.is_some_and(|since| minor >= since);
        standard.level != Level::Privileged
            && row.level <= standard.level
            && minor >= row.since
            && !overridden
    };
    CHECKS.iter().filter(applies).filter_map(|row| (row.check)(&pod, minor)).collect()
}

/// All violations in one text.
pub fn describe(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join(", ")
}

/// What checks look at.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// All containers, in the order in which upstream visits them.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// The names of the containers that are like this.
    fn named(&self, is: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is(container)).map(name).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> {
        self.spec["volumes"].as_array().into_iter().flatten()
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Root in a user namespace of the pod's own is nobody outside of it (since 1.35).
    fn has_own_users(&self, minor: u16) -> bool {
        minor >= 35 && self.spec["hostUsers"] == false
    }
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

/// `"a", "b"`; upstream escapes nothing.
fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`, whoever of them.
fn setters(pod: bool, names: &[&str]) -> String {
    let containers = (!names.is_empty()).then(|| containers(names));
    pod.then(|| "pod".to_owned()).into_iter().chain(containers).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn cases() {
        golden("pod_security/cases.txt", |case| {
            let yaml = crate::schema::parse(case.get("pod").as_bytes(), crate::schema::Format::Yaml);
            let pod = yaml.expect("YAML").value;
            let (level, version) = case.get("standard").split_once(':').expect("LEVEL:VERSION");
            let level = Level::parse(level).expect("a level");
            let standard = Standard { level, minor: parse_version(version).expect("a version") };
            match violations(standard, &pod).as_slice() {
                [] => "fine".to_owned(),
                some => some.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n"),
            }
        });
    }

    #[test]
    fn labels() {
        let policy = |pairs: &[(&str, &str)]| {
            let labels =
                pairs.iter().map(|(mode, text)| (format!("{PREFIX}{mode}"), (*text).to_owned())).collect();
            Policy::of_labels(&labels)
        };
        assert!(policy(&[]).0.allows_all());
        let (given, wrong) =
            policy(&[("enforce", "baseline"), ("enforce-version", "v1.20"), ("audit", "restricted")]);
        assert_eq!(wrong, []);
        let shown = [given.enforce, given.audit, given.warn].map(|standard| standard.to_string());
        assert_eq!(shown, ["baseline:v1.20", "restricted:latest", "baseline:v1.20"]);
        let (given, wrong) = policy(&[("enforce", "strict"), ("warn-version", "1.2")]);
        assert_eq!((given.enforce.level, given.warn.level), (Level::Restricted, Level::Privileged));
        assert_eq!(wrong.len(), 2);
        for text in ["v1.01", "v2.0", "1.2", "v1.", "v1.x", "v1.+1"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }
}
