//! `pluginConfig`: what the rules of a profile are to know.

use super::cursor::{Cursor, Invalid};
use crate::plugins::Plugin;
use crate::profile::{AddedAffinity, Candidates, FILTERS, Profile, SCORES, Scoring, Strategy};
use crate::resources::{CPU, MEMORY};
use crate::selector::NodeTerm;
use api::k8s::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Scores of a function of utilization go this far in the file.
const MOST_POINTS: i64 = 10;

/// Reads `pluginConfig` of a profile.
pub fn read(profile: &Cursor<'_>, into: &mut Profile) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for one in profile.items("pluginConfig")? {
        one.has_only(&["name", "args"])?;
        let name = one.text_of("name")?;
        if !seen.insert(name) {
            return Err(one.duplicate("name", name));
        }
        let Some(arguments) = one.get("args") else { continue };
        if arguments.get("apiVersion").is_some() {
            arguments.must_be("apiVersion", super::VERSION)?;
        }
        if arguments.get("kind").is_some() {
            arguments.must_be("kind", &format!("{name}Args"))?;
        }
        match name {
            "NodeResourcesFit" => fit(&arguments, into)?,
            "NodeResourcesBalancedAllocation" => balance(&arguments)?,
            "PodTopologySpread" => into.spread = spread(&arguments)?,
            "NodeAffinity" => into.added = affinity(&arguments)?,
            "InterPodAffinity" => inter_pod(&arguments, into)?,
            "VolumeBinding" => into.bind_timeout = volumes(&arguments)?,
            "DefaultPreemption" => {
                let candidates = candidates(&arguments)?;
                into.preemption = into.preemption.map(|_| candidates);
            }
            _ => return Err(unknown(&one)),
        }
    }
    Ok(())
}

fn unknown(one: &Cursor<'_>) -> Invalid {
    let Some(name) = one.get("name") else { return one.required("name") };
    let rule = name.text().is_ok_and(|name| name.parse::<Plugin>().is_ok());
    if rule {
        return name.wrong("this plugin has no arguments: remove them");
    }
    let rules = FILTERS.iter().chain(SCORES.iter().map(|(rule, _)| rule));
    let names: BTreeSet<String> =
        rules.map(Plugin::to_string).chain(["DefaultPreemption".to_owned()]).collect();
    name.unsupported(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fields(arguments: &Cursor<'_>, known: &[&str]) -> Result<(), Invalid> {
    arguments.has_only(&[&["apiVersion", "kind"], known].concat())
}

fn fit(arguments: &Cursor<'_>, into: &mut Profile) -> Result<(), Invalid> {
    fields(arguments, &["ignoredResources", "ignoredResourceGroups", "scoringStrategy"])?;
    let names = |field: &str| -> Result<BTreeSet<String>, Invalid> {
        arguments.items(field)?.iter().map(|one| one.text().map(str::to_owned)).collect()
    };
    for group in arguments.items("ignoredResourceGroups")? {
        if group.text()?.contains('/') {
            return Err(group.wrong("resource group name can't contain '/'"));
        }
    }
    into.ignored = (names("ignoredResources")?, names("ignoredResourceGroups")?);
    if let Some(strategy) = arguments.get("scoringStrategy") {
        into.scoring = scoring(&strategy)?;
    }
    Ok(())
}

fn scoring(strategy: &Cursor<'_>) -> Result<Scoring, Invalid> {
    strategy.has_only(&["type", "resources", "requestedToCapacityRatio"])?;
    let ratio = strategy.get("requestedToCapacityRatio");
    let kind = strategy.get("type");
    let named = kind.as_ref().map_or(Ok("LeastAllocated"), Cursor::text)?;
    let read = match (named, &ratio) {
        ("LeastAllocated", None) => Strategy::LeastAllocated,
        ("MostAllocated", None) => Strategy::MostAllocated,
        ("RequestedToCapacityRatio", Some(ratio)) => Strategy::RequestedToCapacityRatio(shape(ratio)?),
        ("RequestedToCapacityRatio", None) => return Err(strategy.required("requestedToCapacityRatio")),
        ("LeastAllocated" | "MostAllocated", Some(_)) => {
            let why = "must be nil when type is not RequestedToCapacityRatio";
            return Err(strategy.forbidden("requestedToCapacityRatio", why));
        }
        _ => {
            let kind = kind.expect("an absent type is known");
            return Err(kind.unsupported(&["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]));
        }
    };
    let listed = strategy.items("resources")?;
    let resources = listed.iter().map(resource).collect::<Result<Vec<_>, _>>()?;
    let resources = if resources.is_empty() { Scoring::default().resources } else { resources };
    Ok(Scoring { strategy: read, resources })
}

fn resource(one: &Cursor<'_>) -> Result<(Box<str>, i64), Invalid> {
    one.has_only(&["name", "weight"])?;
    let name = one.text_of("name")?;
    let range = format!("resource weight of {name} not in valid range (0, 100]");
    // Upstream takes a weight of zero for one that isn't there.
    let weight = match one.get("weight") {
        Some(weight) => weight.integer(0..=100, &range)?.max(1),
        None => 1,
    };
    Ok((name.into(), weight))
}

fn shape(ratio: &Cursor<'_>) -> Result<Vec<(i64, i64)>, Invalid> {
    ratio.has_only(&["shape"])?;
    let mut points: Vec<(i64, i64)> = Vec::new();
    for point in ratio.items("shape")? {
        point.has_only(&["utilization", "score"])?;
        let utilization = point.integer_of("utilization", 0..=100, 0)?;
        let score = point.integer_of("score", 0..=MOST_POINTS, 0)?;
        if points.last().is_some_and(|(before, _)| *before >= utilization) {
            let field = point.get("utilization");
            return Err(field.unwrap_or(point).wrong("values must be sorted in increasing order"));
        }
        points.push((utilization, score * crate::plugins::MAX_SCORE / MOST_POINTS));
    }
    if points.is_empty() {
        return Err(Invalid::new(
            ratio.field(),
            "Required value: at least one point must be specified".to_owned(),
        ));
    }
    Ok(points)
}

fn balance(arguments: &Cursor<'_>) -> Result<(), Invalid> {
    fields(arguments, &["resources"])?;
    let listed = arguments.items("resources")?;
    let resources: BTreeMap<Box<str>, i64> = listed.iter().map(resource).collect::<Result<_, _>>()?;
    let usual = BTreeMap::from([(CPU.into(), 1), (MEMORY.into(), 1)]);
    match arguments.get("resources") {
        Some(given) if resources != usual => {
            Err(given.wrong("only cpu and memory, each of weight 1, are balanced: remove it"))
        }
        _ => Ok(()),
    }
}

fn spread(arguments: &Cursor<'_>) -> Result<Option<Vec<TopologySpreadConstraint>>, Invalid> {
    fields(arguments, &["defaultConstraints", "defaultingType"])?;
    let listed = arguments.items("defaultConstraints")?;
    let kind = arguments.get("defaultingType");
    match kind.as_ref().map_or(Ok("System"), Cursor::text)? {
        "System" if listed.is_empty() => return Ok(None),
        "System" => {
            let given = kind.unwrap_or_else(|| arguments.clone());
            return Err(
                given.wrong("when .defaultConstraints are not empty, defaultingType must be \"List\"")
            );
        }
        "List" => {}
        _ => return Err(kind.unwrap_or_else(|| arguments.clone()).unsupported(&["System", "List"])),
    }
    let mut constraints: Vec<TopologySpreadConstraint> = Vec::new();
    for one in &listed {
        let constraint = constraint(one)?;
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key
                && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if constraints.iter().any(same) {
            return Err(one.duplicate("topologyKey", &constraint.topology_key));
        }
        constraints.push(constraint);
    }
    Ok(Some(constraints))
}

fn constraint(one: &Cursor<'_>) -> Result<TopologySpreadConstraint, Invalid> {
    one.has_only(&[
        "maxSkew",
        "topologyKey",
        "whenUnsatisfiable",
        "labelSelector",
        "minDomains",
        "nodeAffinityPolicy",
        "nodeTaintsPolicy",
        "matchLabelKeys",
    ])?;
    one.get("maxSkew").ok_or_else(|| one.required("maxSkew"))?.integer(1.., "not in valid range (0, inf)")?;
    if one.text_of("topologyKey")?.is_empty() {
        return Err(Invalid::new(one.field(), "topologyKey: Required value: can not be empty".to_owned()));
    }
    let when = one.get("whenUnsatisfiable").ok_or_else(|| one.required("whenUnsatisfiable"))?;
    if !["DoNotSchedule", "ScheduleAnyway"].contains(&when.text()?) {
        return Err(when.unsupported(&["DoNotSchedule", "ScheduleAnyway"]));
    }
    if one.get("labelSelector").is_some() {
        let why = "constraint must not define a selector, as they deduced for each pod";
        return Err(one.forbidden("labelSelector", why));
    }
    one.read()
}

fn affinity(arguments: &Cursor<'_>) -> Result<AddedAffinity, Invalid> {
    fields(arguments, &["addedAffinity"])?;
    let Some(added) = arguments.get("addedAffinity") else { return Ok(AddedAffinity::default()) };
    added.has_only(&[
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    ])?;
    let read: NodeAffinity = added.read()?;
    let required = read.required_during_scheduling_ignored_during_execution;
    let preferred = read.preferred_during_scheduling_ignored_during_execution;
    let preferred = preferred.iter().flatten();
    Ok(AddedAffinity {
        required: required.map(|required| required.node_selector_terms.iter().map(NodeTerm::of).collect()),
        preferred: preferred.map(|term| (i64::from(term.weight), NodeTerm::of(&term.preference))).collect(),
    })
}

fn inter_pod(arguments: &Cursor<'_>, into: &mut Profile) -> Result<(), Invalid> {
    fields(arguments, &["hardPodAffinityWeight", "ignorePreferredTermsOfExistingPods"])?;
    into.hard_affinity = arguments.integer_of("hardPodAffinityWeight", 0..=100, 1)?;
    into.ignore_others_wishes = arguments.boolean("ignorePreferredTermsOfExistingPods", false)?;
    Ok(())
}

fn volumes(arguments: &Cursor<'_>) -> Result<Duration, Invalid> {
    fields(arguments, &["bindTimeoutSeconds", "shape"])?;
    if let Some(shape) = arguments.get("shape") {
        return Err(shape.wrong("nodes aren't compared by their storage's capacity: remove it"));
    }
    let why = "invalid BindTimeoutSeconds, should not be a negative value";
    let seconds = arguments.get("bindTimeoutSeconds").map(|seconds| seconds.integer(0.., why)).transpose()?;
    Ok(seconds.map_or(Profile::default().bind_timeout, |seconds| Duration::from_secs(seconds.unsigned_abs())))
}

fn candidates(arguments: &Cursor<'_>) -> Result<Candidates, Invalid> {
    fields(arguments, &["minCandidateNodesPercentage", "minCandidateNodesAbsolute"])?;
    let percent = arguments.integer_of("minCandidateNodesPercentage", 0..=100, 10)?;
    let least = arguments.integer_of("minCandidateNodesAbsolute", 0.., 100)?;
    if (percent, least) == (0, 0) {
        let why = "Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute";
        return Err(Invalid::new(
            &format!("{}.minCandidateNodesPercentage", arguments.field()),
            why.to_owned(),
        ));
    }
    let count = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Candidates { percent: count(percent), least: count(least) })
}
