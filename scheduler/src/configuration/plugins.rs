//! Which plugins a profile has: upstream's defaults, what `multiPoint` changes of them, and what each extension
//! point changes of that.

use super::cursor::{Cursor, Invalid};
use crate::plugins::Plugin;
use crate::profile::{Candidates, FILTERS, Profile, SCORES};
use std::collections::BTreeMap;

/// Plugins that aren't rules about nodes, and where they act. There is one of each kind here, so none can go.
const FIXED: [(&str, &str); 2] = [("PrioritySort", "queueSort"), ("DefaultBinder", "bind")];
const GATES: (&str, &str) = ("SchedulingGates", "preEnqueue");
const PREEMPTION: (&str, &str) = ("DefaultPreemption", "postFilter");

/// Upstream's that don't exist here: they may be disabled, but not enabled.
const ABSENT: [&str; 7] = [
    "AzureDiskLimits",
    "CinderLimits",
    "DynamicResources",
    "EBSLimits",
    "GCEPDLimits",
    "GangScheduling",
    "NodeDeclaredFeatures",
];

/// Extension points without a choice of their own: what is enabled under `filter` and `score` does all it takes.
const IMPLIED: [&str; 6] = ["preFilter", "preScore", "reserve", "permit", "preBind", "postBind"];
const POINTS: [&str; 6] = ["preEnqueue", "queueSort", "filter", "postFilter", "score", "bind"];
const ALL: &str = "*";

/// Names with weights.
type Set = BTreeMap<String, i64>;

/// What one extension point says.
#[derive(Default)]
struct Point {
    enabled: Set,
    disabled: Vec<String>,
}

/// Reads `plugins` of a profile.
pub fn read(profile: &Cursor<'_>, into: &mut Profile, notes: &mut Vec<String>) -> Result<(), Invalid> {
    let Some(plugins) = profile.get("plugins") else { return Ok(()) };
    plugins.has_only(&[&["multiPoint"], &POINTS[..], &IMPLIED].concat())?;
    for name in IMPLIED.into_iter().filter(|name| plugins.get(name).is_some()) {
        point(&plugins, name)?;
        notes.push(format!(
            "{}.{name} has no effect: a rule is one here, see filter and score",
            plugins.field()
        ));
    }
    let everywhere = point(&plugins, "multiPoint")?.applied(&defaults());
    let at = |name: &str| point(&plugins, name).map(|point| point.expanded(&everywhere, name));
    for (name, extension) in FIXED {
        if !at(extension)?.contains_key(name) {
            let problem = format!("{name} can't be disabled: there is no other {extension} plugin");
            return Err(Invalid::new(&format!("{}.{extension}", plugins.field()), problem));
        }
    }
    if !at(GATES.1)?.contains_key(GATES.0) {
        notes.push(format!("{}: gates are honoured without SchedulingGates, too", plugins.field()));
    }
    let rules = |set: Set| set.into_iter().filter_map(|(name, weight)| Some((name.parse().ok()?, weight)));
    into.filters = rules(at("filter")?).map(|(rule, _): (Plugin, i64)| rule).collect();
    into.weights = rules(at("score")?).collect();
    into.preemption = at(PREEMPTION.1)?.contains_key(PREEMPTION.0).then(Candidates::default);
    Ok(())
}

/// Upstream's plugins, all of which are enabled by default, with their weights.
fn defaults() -> Set {
    let rules = FILTERS.iter().map(|rule| (rule.to_string(), 0));
    let scores = SCORES.iter().map(|(rule, weight)| (rule.to_string(), *weight));
    let others = FIXED.into_iter().chain([GATES, PREEMPTION]).map(|(name, _)| (name.to_owned(), 0));
    rules.chain(scores).chain(others).collect()
}

/// Whether a plugin acts there.
fn extends(name: &str, point: &str) -> bool {
    let rule = name.parse::<Plugin>().ok();
    match point {
        "multiPoint" => true,
        "filter" => rule.is_some_and(|rule| FILTERS.contains(&rule)),
        "score" => rule.is_some_and(|rule| SCORES.iter().any(|(one, _)| *one == rule)),
        _ if IMPLIED.contains(&point) => true,
        _ => FIXED.into_iter().chain([GATES, PREEMPTION]).any(|one| one == (name, point)),
    }
}

fn point(plugins: &Cursor<'_>, name: &str) -> Result<Point, Invalid> {
    let Some(point) = plugins.get(name) else { return Ok(Point::default()) };
    point.has_only(&["enabled", "disabled"])?;
    let mut read = Point::default();
    for one in point.items("enabled")? {
        one.has_only(&["name", "weight"])?;
        let plugin = known(&one, name)?;
        let weight = one.integer_of("weight", 0..=MOST, 0)?;
        if read.enabled.insert(plugin.to_owned(), weight.max(1)).is_some() {
            return Err(one.duplicate("name", plugin));
        }
    }
    for one in point.items("disabled")? {
        one.has_only(&["name", "weight"])?;
        let plugin = one.text_of("name")?;
        if plugin != ALL && !ABSENT.contains(&plugin) {
            known(&one, name)?;
        }
        read.disabled.push(plugin.to_owned());
    }
    Ok(read)
}

/// The largest weight: sums of scores stay far from the limits of numbers.
const MOST: i64 = i32::MAX as i64;

/// The name of a plugin that is here and acts at this point.
fn known<'a>(one: &Cursor<'a>, point: &str) -> Result<&'a str, Invalid> {
    let name = one.text_of("name")?;
    let field = one.get("name").expect("it was just read");
    if ABSENT.contains(&name) {
        return Err(field.wrong("this scheduler doesn't have that plugin: remove it"));
    }
    let all = defaults();
    if !all.contains_key(name) {
        return Err(field.unsupported(&all.keys().map(String::as_str).collect::<Vec<_>>()));
    }
    if !extends(name, point) {
        return Err(field.wrong(&format!("plugin {name:?} does not extend {point} plugins: remove it there")));
    }
    Ok(name)
}

impl Point {
    /// What `multiPoint` leaves of the defaults, and adds to them.
    fn applied(self, defaults: &Set) -> Set {
        let kept = |name: &str| !self.disables(name);
        let kept =
            defaults.iter().filter(|(name, _)| kept(name)).map(|(name, weight)| (name.clone(), *weight));
        let mut all: Set = kept.collect();
        all.extend(self.enabled);
        all
    }

    /// What is enabled at this point.
    fn expanded(self, everywhere: &Set, point: &str) -> Set {
        let here = |name: &str| extends(name, point) && !self.disables(name);
        let implied = everywhere.iter().filter(|(name, _)| here(name));
        let mut all: Set = implied.map(|(name, weight)| (name.clone(), *weight)).collect();
        all.extend(self.enabled);
        all
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|one| one == ALL || one == name)
    }
}
