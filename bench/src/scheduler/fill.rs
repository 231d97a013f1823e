//! The measurements that fill the cluster: create, wait until all are done, clean up.

use anyhow::Result;
use serde_json::json;

use super::objects::{apart, deployment, even, gang, group, job, pod, pods, priority_class};
use super::page::Line;
use super::session::{Creation, Session, Took};
use crate::api::wire::Wire;

/// Pods of a gang.
const GANG: usize = 10;
/// Namespaces that the anti-affinity reaches over.
const NAMESPACES: usize = 4;

/// Pods that fit anywhere.
pub async fn basic(session: &Session, count: usize) -> Result<Line> {
    let namespace = "bench-basic";
    session.namespace(namespace).await?;
    let objects =
        (0..count).map(|number| Creation::new(&pods(namespace), &pod(&format!("p-{number}"), "100m")));
    let took =
        session.create_and_wait(objects.collect(), &pods(namespace), count, |seen| seen.is_bound()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("plain pods, created → bound", count, &took))
}

/// Pods that keep apart from each other over several namespaces.
pub async fn anti_affinity(session: &Session, count: usize) -> Result<Line> {
    let names: Vec<String> = (0..NAMESPACES).map(|number| format!("bench-apart-{number}")).collect();
    for name in &names {
        session.namespace(name).await?;
    }
    let object = |number: usize| {
        let path = pods(&names[number % NAMESPACES]);
        Creation::new(&path, &apart(pod(&format!("p-{number}"), "100m")))
    };
    let objects = (0..count).map(object).collect();
    let took = session.create_and_wait(objects, "/api/v1/pods", count, |seen| {
        seen.is_bound() && seen.key().starts_with("bench-apart-")
    });
    let took = took.await?;
    for name in &names {
        session.remove_namespace(name).await?;
    }
    Ok(rate("required anti-affinity by host over 4 namespaces", count, &took))
}

/// Pods that spread over zones.
pub async fn spread(session: &Session, count: usize) -> Result<Line> {
    let namespace = "bench-spread";
    session.namespace(namespace).await?;
    let object = |number: usize| Creation::new(&pods(namespace), &even(pod(&format!("p-{number}"), "100m")));
    let objects = (0..count).map(object).collect();
    let took = session.create_and_wait(objects, &pods(namespace), count, |seen| seen.is_bound()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("hard spread over zones, skew 1", count, &took))
}

/// Fills every node with one pod, then places pods that need the whole node.
pub async fn preemption(session: &Session, nodes: usize, count: usize) -> Result<Line> {
    let namespace = "bench-preemption";
    session.namespace(namespace).await?;
    let class = priority_class("bench-important").to_string();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    Wire::open(&session.target).await?.expect("POST", classes, class.as_bytes()).await?;
    let low = |number: usize| Creation::new(&pods(namespace), &pod(&format!("low-{number}"), "20"));
    let filled = (0..nodes).map(low).collect();
    session.create_and_wait(filled, &pods(namespace), nodes, |seen| seen.is_bound()).await?;
    let high = |number: usize| {
        let mut high = pod(&format!("high-{number}"), "20");
        high["spec"]["priorityClassName"] = json!("bench-important");
        Creation::new(&pods(namespace), &high)
    };
    let count = count.min(nodes);
    let objects = (0..count).map(high).collect();
    let took = session
        .create_and_wait(objects, &pods(namespace), count, |seen| seen.is_important_and_bound())
        .await?;
    session.remove_namespace(namespace).await?;
    let path = format!("{classes}/bench-important");
    Wire::open(&session.target).await?.expect("DELETE", &path, b"{}").await?;
    Ok(rate("each drives a pod away from a full node", count, &took))
}

/// Gangs of ten.
pub async fn gangs(session: &Session, count: usize) -> Result<Line> {
    let namespace = "bench-gangs";
    session.namespace(namespace).await?;
    let groups = format!("/apis/scheduling.k8s.io/v1beta1/namespaces/{namespace}/podgroups");
    let number_of = count / GANG;
    let gangs = (0..number_of).map(|number| Creation::new(&groups, &gang(&format!("g-{number}"), GANG)));
    session.create(gangs.collect()).await?;
    // Pods of one gang come far apart, as those of many users do.
    let object = |number: usize| {
        let mut member = pod(&format!("p-{number}"), "100m");
        member["spec"]["schedulingGroup"] = json!({"podGroupName": format!("g-{}", number % number_of)});
        Creation::new(&pods(namespace), &member)
    };
    let count = number_of * GANG;
    let objects = (0..count).map(object).collect();
    let took = session.create_and_wait(objects, &pods(namespace), count, |seen| seen.is_bound()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("gangs of ten", count, &took))
}

/// Pods that exist and wait for their group, from the group's creation until all are bound: the way to the nodes alone,
/// without the pods' own creation.
pub async fn backlog(session: &Session, count: usize) -> Result<Line> {
    let namespace = "bench-backlog";
    session.namespace(namespace).await?;
    let object = |number: usize| {
        let mut member = pod(&format!("p-{number}"), "100m");
        member["spec"]["schedulingGroup"] = json!({"podGroupName": "all"});
        Creation::new(&pods(namespace), &member)
    };
    session.create((0..count).map(object).collect()).await?;
    let groups = format!("/apis/scheduling.k8s.io/v1beta1/namespaces/{namespace}/podgroups");
    let release = vec![Creation::new(&groups, &group("all"))];
    let took = session.create_and_wait(release, &pods(namespace), count, |seen| seen.is_bound()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("plain pods that wait, released → bound", count, &took))
}

/// Jobs, from the first submission until all are seen to be complete.
pub async fn jobs(session: &Session, count: usize) -> Result<Line> {
    let namespace = "bench-jobs";
    session.namespace(namespace).await?;
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let objects = (0..count).map(|number| Creation::new(&path, &job(&format!("j-{number}")))).collect();
    let took = session.create_and_wait(objects, &path, count, |seen| seen.is_complete()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("Jobs, submitted → seen complete", count, &took))
}

/// Deployments, from the first creation until all their pods run.
pub async fn deployments(session: &Session) -> Result<Line> {
    let (namespace, deployments, replicas) = ("bench-deployments", 50, 20);
    session.namespace(namespace).await?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let object = |number: usize| Creation::new(&path, &deployment(&format!("d-{number}"), replicas));
    let objects = (0..deployments).map(object).collect();
    let count = deployments * replicas;
    let took = session.create_and_wait(objects, &pods(namespace), count, |seen| seen.is_running()).await?;
    session.remove_namespace(namespace).await?;
    Ok(rate("pods of 50 Deployments × 20 replicas, created → Running", count, &took))
}

/// A line of a rate.
pub fn rate(what: &str, count: usize, took: &Took) -> Line {
    let line = Line::new(format!("{count} {what}"));
    let line = line.with("took", format!("{:.2} s", took.wall.as_secs_f64()));
    let line = line.with("rate", format!("{:.0}/s", count as f64 / took.wall.as_secs_f64()));
    if took.cpu.is_zero() {
        return line;
    }
    line.with("CPU of the server", format!("{:.0} µs each", took.cpu.as_secs_f64() * 1e6 / count as f64))
}
