//! What containers use: the sum over the processes of each, from one pass over `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Known;
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
    let supervisors: Vec<i32> = running.iter().map(|(_, _, record)| record.shim.pid).collect();
    let all = of_trees(&supervisors)?;
    let usage = running.into_iter().zip(all).map(|((id, known, record), usage)| ContainerUsage {
        id,
        pod: known.config.pod.clone(),
        container: known.config.container.clone(),
        started_at: record.started_at,
        usage,
    });
    Ok(usage.collect())
}

/// What the tree of processes below each supervisor uses, in the same order. The supervisor itself isn't the
/// container's, but the time of what it has buried is.
fn of_trees(supervisors: &[i32]) -> io::Result<Vec<Usage>> {
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
            sum.working_set += process.resident;
            sum.rss += process.resident;
            sum.processes += 1;
            next.extend(children.get(&process.pid).into_iter().flatten());
        }
        sum
    };
    Ok(supervisors.iter().map(tree).collect())
}
