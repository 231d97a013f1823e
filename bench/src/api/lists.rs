//! Lists of many pods: how long until the last byte is there.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::page::Line;
use super::wire::Wire;
use super::{NAMESPACE, Server, collection};
use crate::statistics::{Samples, number};

/// Connections that create objects.
const CREATORS: usize = 32;
/// Lists that are timed.
const REPETITIONS: usize = 20;

/// Makes the pods, lists them, and removes them.
pub async fn run(server: &Server, pods: usize) -> Result<Vec<Line>> {
    create_pods(server, "listed", pods).await?;
    let mut wire = Wire::open(&server.target).await?;
    let mut lines = Vec::new();
    for (what, query) in
        [("consistent", ""), ("any version", "?resourceVersion=0"), ("pages of 500", "?limit=500")]
    {
        let (mut times, mut bytes) = (Samples::default(), 0);
        for _ in 0..REPETITIONS {
            let start = Instant::now();
            bytes = whole_list(&mut wire, query).await?;
            times.push_millis(start.elapsed());
        }
        let percentile = |share| number(times.percentile(share).unwrap_or(f64::NAN));
        let line = Line::new(format!("List of {pods} pods, {what}"))
            .with("p50", format!("{} ms", percentile(0.5)))
            .with("p99", format!("{} ms", percentile(0.99)))
            .with("size", format!("{} MB", number(bytes as f64 / 1e6)));
        lines.push(line);
    }
    remove_pods(&mut wire).await?;
    Ok(lines)
}

/// Reads all pages; gives the bytes of their bodies.
async fn whole_list(wire: &mut Wire, query: &str) -> Result<usize> {
    let paged = query.contains("limit");
    let (mut bytes, mut next) = (0, String::new());
    loop {
        let path = format!("{}{query}{next}", collection("pods"));
        if !paged {
            return wire.expect("GET", &path, &[]).await;
        }
        let (_, answer) = wire.send("GET", &path, &[]).await?;
        bytes += answer.len();
        match token(&answer) {
            Some(token) => next = format!("&continue={token}"),
            None => return Ok(bytes),
        }
    }
}

/// The continue token in the head of a list, found without parsing the list.
fn token(list: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&list[..list.len().min(2000)]).into_owned();
    let (_, rest) = head.split_once("\"continue\":\"")?;
    let (token, _) = rest.split_once('"')?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// Makes pods that no scheduler cares for.
pub async fn create_pods(server: &Server, prefix: &str, count: usize) -> Result<()> {
    let prefix = prefix.to_owned();
    create_many(server, "pods", count, move |number| pod(&format!("{prefix}-{number}"))).await
}

/// Makes as many objects over several connections.
pub async fn create_many(
    server: &Server,
    plural: &'static str,
    count: usize,
    object: impl Fn(usize) -> Value + Clone + Send + 'static,
) -> Result<()> {
    let mut creators = JoinSet::new();
    for creator in 0..CREATORS {
        let mut wire = Wire::open(&server.target).await?;
        let object = object.clone();
        creators.spawn(async move {
            for number in (creator..count).step_by(CREATORS) {
                wire.expect("POST", &collection(plural), object(number).to_string().as_bytes()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = creators.join_next().await {
        done??;
    }
    Ok(())
}

/// Deletes all pods of our namespace, and waits until they are gone. More of them than a server deletes within one
/// request's time take several.
pub async fn remove_pods(wire: &mut Wire) -> Result<()> {
    loop {
        let (status, answer) =
            wire.send("DELETE", &collection("pods"), b"{\"gracePeriodSeconds\":0}").await?;
        ensure!(matches!(status, 200 | 504), "deleting pods: {status}: {}", String::from_utf8_lossy(&answer));
        let (_, left) = wire.send("GET", &format!("{}?limit=1", collection("pods")), &[]).await?;
        let left: Value = serde_json::from_slice(&left)?;
        if left["items"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
    }
}

/// A pod of about 2 KB once it is stored, as those of a real cluster are.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench", "number": name}},
        "spec": {"schedulerName": "nobody", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "busybox:1.37", "command": ["sleep", "3600"],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_the_head() {
        assert_eq!(token(br#"{"metadata":{"continue":"abc","x":1},"items":[]}"#), Some("abc".to_owned()));
        assert_eq!(token(br#"{"metadata":{"continue":""},"items":[]}"#), None);
        assert_eq!(token(br#"{"items":[]}"#), None);
    }
}
