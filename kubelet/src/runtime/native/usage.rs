//! What containers use: what their control groups count. Plain processes have none, nor has a host without the
//! controllers: there it is the sum over the processes of each, from one pass over `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Known;
use crate::container::cgroup::{Cgroup, PodGroup};
use crate::pod::ContainerId;
use crate::process::{ProcessUsage, usages};
use crate::stats::{ContainerUsage, Usage};

/// What those of the containers use that run.
pub fn of_containers(known: Vec<(ContainerId, Arc<Known>)>) -> io::Result<Vec<ContainerUsage>> {
    let mut running = Vec::new();
    for (id, known) in known {
        let Some(record) = known.dir.running()? else { continue };
        // An ended one's number may be a stranger's by now.
        if known.dir.exit()?.is_none() && record.shim.open()?.is_some() {
            running.push((id, known, record));
        }
    }
    let counted: Vec<Option<Usage>> =
        running.iter().map(|(_, known, _)| known.config.cgroup.as_ref().and_then(Cgroup::usage)).collect();
    let uncounted = running.iter().zip(&counted).filter(|(_, usage)| usage.is_none());
    let supervisors: Vec<i32> = uncounted.map(|((_, _, record), _)| record.shim.pid).collect();
    let mut summed = of_trees(&supervisors)?.into_iter();
    let usage = running.into_iter().zip(counted).map(|((id, known, record), usage)| ContainerUsage {
        id,
        pod: known.config.pod.clone(),
        container: known.config.container.clone(),
        group: known.config.cgroup.as_ref().map(|group| group.path().to_owned()).unwrap_or_default(),
        started_at: record.started_at,
        usage: usage.or_else(|| summed.next()).unwrap_or_default(),
        stalls: known.config.cgroup.as_ref().map(Cgroup::stalls).unwrap_or_default(),
        pod_stalls: known.config.pod_group.as_ref().map(PodGroup::stalls).unwrap_or_default(),
    });
    Ok(usage.collect())
}

/// What the tree of processes below each supervisor uses, in the same order. The supervisor itself isn't the
/// container's, but the time of what it has buried is.
fn of_trees(supervisors: &[i32]) -> io::Result<Vec<Usage>> {
    if supervisors.is_empty() {
        return Ok(Vec::new());
    }
    let all = usages()?;
    let mut children: BTreeMap<i32, Vec<&ProcessUsage>> = BTreeMap::new();
    for process in &all {
        children.entry(process.parent).or_default().push(process);
    }
    let buried: BTreeMap<i32, _> = all.iter().map(|process| (process.pid, process.buried)).collect();
    let tree = |supervisor: &i32| {
        let mut sum = Usage { cpu: buried.get(supervisor).copied().unwrap_or_default(), ..Usage::default() };
        let mut next: Vec<_> = children.get(supervisor).into_iter().flatten().collect();
        while let Some(process) = next.pop() {
            sum.cpu += process.cpu + process.buried;
            sum.memory += process.resident;
            sum.working_set += process.resident;
            sum.rss += process.resident;
            sum.processes += 1;
            next.extend(children.get(&process.pid).into_iter().flatten());
        }
        sum
    };
    Ok(supervisors.iter().map(tree).collect())
}
