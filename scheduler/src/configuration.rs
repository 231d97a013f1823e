//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1): the file that says which profiles there are.
//!
//! Fields, defaults and complaints are upstream's. What this scheduler has no use for is accepted if that changes no
//! placement, and told in [`Configuration::notes`]; everything else that it can't do is refused.

mod arguments;
mod cursor;
mod plugins;

pub use cursor::Invalid;

use crate::pod::DEFAULT_SCHEDULER;
use crate::profile::{Profile, Profiles};
use crate::queue::Backoff;
use cursor::Cursor;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// By `schedulerName`.
    pub profiles: Profiles,
    /// How long pods that failed wait.
    pub backoff: Backoff,
    /// How leadership is decided.
    pub election: Election,
    /// What was accepted and has no effect, with the reason.
    pub notes: Vec<String>,
}

/// `leaderElection`: what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Whether there is an election at all.
    pub elects: bool,
    /// Name of the lease.
    pub name: Option<String>,
    /// Namespace of the lease.
    pub namespace: Option<String>,
    /// `leaseDuration`
    pub lease: Option<Duration>,
    /// `renewDeadline`
    pub renew: Option<Duration>,
    /// `retryPeriod`
    pub retry: Option<Duration>,
}

const VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// What is accepted without effect, and why.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("parallelism", "nodes are looked at by one thread"),
    ("percentageOfNodesToScore", "all nodes are looked at"),
    ("enableProfiling", "profiles are taken from outside"),
    ("enableContentionProfiling", "profiles are taken from outside"),
    ("delayCacheUntilActive", "it is always so"),
];

impl Configuration {
    /// Reads a file's text, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let value: Value =
            serde_yaml::from_str(text).map_err(|error| Invalid::new("", format!("not YAML: {error}")))?;
        let root = Cursor::root(&value);
        root.has_only(&[
            "apiVersion",
            "kind",
            "profiles",
            "parallelism",
            "percentageOfNodesToScore",
            "podInitialBackoffSeconds",
            "podMaxBackoffSeconds",
            "leaderElection",
            "clientConnection",
            "enableProfiling",
            "enableContentionProfiling",
            "delayCacheUntilActive",
            "extenders",
        ])?;
        root.must_be("apiVersion", VERSION)?;
        root.must_be("kind", KIND)?;
        refuse_extenders(&root)?;
        let mut notes = without_effect(&root)?;
        notes.extend(connection(&root)?);
        let profiles = profiles(&root, &mut notes)?;
        Ok(Configuration { profiles, backoff: backoff(&root)?, election: election(&root)?, notes })
    }
}

fn refuse_extenders(root: &Cursor<'_>) -> Result<(), Invalid> {
    match root.items("extenders")?.first() {
        Some(extender) => {
            Err(extender
                .wrong("extenders aren't supported: remove it, or let another scheduler serve its pods"))
        }
        None => Ok(()),
    }
}

fn without_effect(root: &Cursor<'_>) -> Result<Vec<String>, Invalid> {
    if let Some(parallelism) = root.get("parallelism") {
        parallelism.integer(1.., "should be an integer value greater than zero")?;
    }
    percentage(root)?;
    for name in ["enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"] {
        root.boolean(name, false)?;
    }
    let said = WITHOUT_EFFECT.iter().filter(|(name, _)| root.get(name).is_some());
    Ok(said.map(|(name, why)| format!("{name} has no effect: {why}")).collect())
}

fn percentage(at: &Cursor<'_>) -> Result<(), Invalid> {
    let Some(percentage) = at.get("percentageOfNodesToScore") else { return Ok(()) };
    percentage.integer(0..=100, "not in valid range [0-100]").map(drop)
}

fn connection(root: &Cursor<'_>) -> Result<Vec<String>, Invalid> {
    let Some(connection) = root.get("clientConnection") else { return Ok(Vec::new()) };
    connection.has_only(&["kubeconfig", "acceptContentTypes", "contentType", "qps", "burst"])?;
    if let Some(kubeconfig) =
        connection.get("kubeconfig").filter(|one| one.text().is_ok_and(|path| !path.is_empty()))
    {
        return Err(kubeconfig.wrong("name it by --kubeconfig"));
    }
    let said = ["acceptContentTypes", "contentType", "qps", "burst"].into_iter();
    let said = said.filter(|name| connection.get(name).is_some());
    Ok(said
        .map(|name| format!("clientConnection.{name} has no effect: the API server limits its clients"))
        .collect())
}

fn backoff(root: &Cursor<'_>) -> Result<Backoff, Invalid> {
    let default = Backoff::default();
    let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
    let first = match root.get("podInitialBackoffSeconds") {
        Some(first) => seconds(first.integer(1.., "must be greater than 0")?),
        None => default.first,
    };
    let longest = match root.get("podMaxBackoffSeconds") {
        Some(longest) => {
            let least = i64::try_from(first.as_secs()).unwrap_or(i64::MAX);
            seconds(longest.integer(least.., "must be greater than or equal to PodInitialBackoffSeconds")?)
        }
        None => default.longest.max(first),
    };
    Ok(Backoff { first, longest })
}

fn election(root: &Cursor<'_>) -> Result<Election, Invalid> {
    let nothing = Value::Null;
    let election = root.get("leaderElection").unwrap_or_else(|| Cursor::root(&nothing));
    election.has_only(&[
        "leaderElect",
        "leaseDuration",
        "renewDeadline",
        "retryPeriod",
        "resourceLock",
        "resourceName",
        "resourceNamespace",
    ])?;
    let elects = election.boolean("leaderElect", true)?;
    if let Some(lock) = election.get("resourceLock").filter(|lock| elects && lock.text() != Ok("leases")) {
        return Err(lock.wrong("resourceLock value must be \"leases\""));
    }
    let text = |name: &str| election.get(name).map(|one| one.text().map(str::to_owned)).transpose();
    let duration = |name: &str| election.get(name).map(|one| one.duration()).transpose();
    let read = Election {
        elects,
        name: text("resourceName")?,
        namespace: text("resourceNamespace")?,
        lease: duration("leaseDuration")?,
        renew: duration("renewDeadline")?,
        retry: duration("retryPeriod")?,
    };
    let lease = read.lease.unwrap_or(Duration::from_secs(15));
    let renew = read.renew.unwrap_or(Duration::from_secs(10));
    let retry = read.retry.unwrap_or(Duration::from_secs(2));
    if lease <= renew {
        return Err(election.wrong("leaseDuration must be greater than renewDeadline"));
    }
    if renew <= retry {
        return Err(election.wrong("renewDeadline must be greater than retryPeriod"));
    }
    Ok(read)
}

fn profiles(root: &Cursor<'_>, notes: &mut Vec<String>) -> Result<Profiles, Invalid> {
    let listed = root.items("profiles")?;
    if listed.is_empty() {
        return Ok(Profiles::upstream(DEFAULT_SCHEDULER));
    }
    let mut profiles: Vec<(Arc<str>, Profile)> = Vec::new();
    for one in &listed {
        one.has_only(&["schedulerName", "percentageOfNodesToScore", "plugins", "pluginConfig"])?;
        let name: Arc<str> = match one.get("schedulerName") {
            Some(name) if !name.text()?.is_empty() => name.text()?.into(),
            None if listed.len() == 1 => DEFAULT_SCHEDULER.into(),
            _ => return Err(one.required("schedulerName")),
        };
        if let Some(first) = profiles.iter().position(|(other, _)| *other == name) {
            return Err(one.duplicate("schedulerName", &format!("profiles[{first}].schedulerName")));
        }
        percentage(one)?;
        let mut profile = Profile::default();
        plugins::read(one, &mut profile, notes)?;
        arguments::read(one, &mut profile)?;
        profiles.push((name, profile));
    }
    Ok(Profiles::new(profiles))
}

#[cfg(test)]
mod tests;
