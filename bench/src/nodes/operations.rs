//! How long the node's runtimes took, by the agent's own count.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;

use super::NODE;
use crate::http::Connection;

/// What a pod's start consists of, in a runtime.
const START: [&str; 3] = ["run_podsandbox", "create_container", "start_container"];

/// Milliseconds for which runtimes have started pods on the node until now.
pub async fn starting(connection: &mut Connection) -> Result<f64> {
    let path = format!("/api/v1/nodes/{NODE}/proxy/metrics");
    let (status, text) = connection.send(Method::GET, &path, Bytes::new()).await?;
    if !status.is_success() {
        bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&text));
    }
    millis(&String::from_utf8_lossy(&text))
}

fn millis(metrics: &str) -> Result<f64> {
    let mut total = 0.0;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("kubelet_runtime_operations_duration_seconds_sum") else {
            continue;
        };
        if START.iter().any(|operation| rest.contains(&format!("{operation:?}"))) {
            let seconds = rest.rsplit(' ').next().context("a line without a value")?;
            total += seconds.parse::<f64>().with_context(|| format!("the line {line:?}"))? * 1e3;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_starts_a_pod_counts() {
        let name = "kubelet_runtime_operations_duration_seconds";
        let metrics = format!(
            "# TYPE {name} histogram\n{name}_sum{{operation_type=\"run_podsandbox\"}} 0.5\n\
             {name}_sum{{operation_type=\"stop_container\"}} 7\n\
             {name}_bucket{{operation_type=\"start_container\",le=\"0.005\"}} 3\n\
             {name}_sum{{operation_type=\"start_container\"}} 0.25\n"
        );
        assert_eq!(millis(&metrics).expect("numbers"), 750.0);
        assert!(millis(&metrics.replace("0.25", "x")).is_err());
    }
}
