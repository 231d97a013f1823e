//! What the way by a Service costs, with few and with many of them, and how soon it follows a change.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::percentiles;
use super::pods::create_answering;
use crate::api::page::Line;
use crate::cluster::{Cluster, within};
use crate::http::Connection;
use crate::objects::{NAMESPACE, core};
use crate::statistics::Samples;

/// Requests for a latency.
const REQUESTS: usize = 2000;
/// Changes that are followed.
const CHANGES: usize = 50;
/// Between them: one that comes at once after another waits a little, so that those that come next go with it.
const APART: Duration = Duration::from_millis(100);
/// Where the pods listen.
const PORT: u16 = 8080;
/// Services before the many are made.
const FEW: usize = 10;
/// A connection that isn't answered by then went nowhere.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The same while a Service isn't routed yet: the kernel itself asks again only after a second.
const GLANCE: Duration = Duration::from_millis(5);

/// The lines of the table: latency directly, by one of few and by one of many Services, and updates.
pub async fn services(cluster: &Cluster, count: usize) -> Result<Vec<Line>> {
    let pods = create_answering(cluster).await?;
    let mut connection = cluster.connect().await?;
    let mut lines = vec![latency("a request to a pod's address", SocketAddrV4::new(pods[0], PORT)).await?];
    let few = make(&mut connection, 0..FEW, pods[0]).await?;
    let last = *few.last().context("some Services")?;
    answered_by(last, pods[0]).await?;
    lines.push(latency(&format!("the same by one of {FEW} Services"), last).await?);
    let begun = Instant::now();
    let all = make(&mut connection, FEW..count, pods[0]).await?;
    let created = begun.elapsed();
    let last = *all.last().context("some Services")?;
    answered_by(last, pods[0]).await?;
    let routed = begun.elapsed();
    lines.push(
        Line::new(format!("{} Services and their EndpointSlices, one after the other", count - FEW))
            .with("created in", format!("{:.2} s", created.as_secs_f64()))
            .with("the last one routed after", format!("{:.2} s", routed.as_secs_f64())),
    );
    lines.push(latency(&format!("a request by one of {count} Services"), last).await?);
    lines.push(updates(&mut connection, count, last, pods).await?);
    Ok(lines)
}

/// Services without selectors that lead to this pod. Where they are.
async fn make(
    connection: &mut Connection,
    numbers: std::ops::Range<usize>,
    pod: Ipv4Addr,
) -> Result<Vec<SocketAddrV4>> {
    let mut addresses = Vec::new();
    for number in numbers {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name(number)},
            "spec": {"ports": [{"port": 80}]}});
        let made = connection.json(Method::POST, &core("services"), Some(&service)).await?;
        let ip = made["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        addresses.push(SocketAddrV4::new(ip.context("the Service has no address")?, 80));
        connection.json(Method::POST, &slices(), Some(&slice(number, pod))).await?;
    }
    Ok(addresses)
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

fn slices() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

fn slice(number: usize, pod: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name(number), "labels": {"kubernetes.io/service-name": name(number)}},
        "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod.to_string()], "conditions": {"ready": true}}],
    })
}

/// Each request on a connection of its own.
async fn latency(what: &str, address: SocketAddrV4) -> Result<Line> {
    let mut samples = Samples::default();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        ask(address).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Line::new(what).with("", percentiles(&samples, "µs")))
}

/// From the request that moves a Service to another pod until that pod answers.
async fn updates(
    connection: &mut Connection,
    count: usize,
    address: SocketAddrV4,
    pods: [Ipv4Addr; 2],
) -> Result<Line> {
    let mut samples = Samples::default();
    for change in 1..=CHANGES {
        let pod = pods[change % 2];
        tokio::time::sleep(APART).await;
        let begun = Instant::now();
        let path = format!("{}/{}", slices(), name(count - 1));
        connection.json(Method::PUT, &path, Some(&slice(count - 1, pod))).await?;
        answered_by(address, pod).await?;
        samples.push_millis(begun.elapsed());
    }
    let what =
        format!("one of {count} Services is moved to another pod, until that answers, {CHANGES} times");
    Ok(Line::new(what).with("", percentiles(&samples, "ms")))
}

async fn answered_by(address: SocketAddrV4, pod: Ipv4Addr) -> Result<()> {
    let pod = pod.to_string();
    within("wait for the Service to lead to its pod", async {
        // Until the rules are there nobody, or somebody else, may answer.
        loop {
            match timeout(GLANCE, ask(address)).await {
                Ok(Ok(found)) if found == pod => return Ok(()),
                _ => tokio::time::sleep(Duration::from_micros(200)).await,
            }
        }
    })
    .await
}

/// Who answers there.
async fn ask(address: SocketAddrV4) -> Result<String> {
    let answer = timeout(ATTEMPT, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    });
    let answer = answer.await.with_context(|| format!("{address} is silent"))??;
    match answer.trim_end().rsplit_once('\n') {
        Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("{address} answers {answer:?}"),
    }
}
