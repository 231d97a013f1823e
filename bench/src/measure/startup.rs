//! `amoeba up` in an empty directory until all nodes are Ready, as a client of the API sees it.

use super::Setting;
use crate::cluster::{Cluster, Shape};
use crate::report::Row;
use crate::statistics::Samples;
use anyhow::Result;

/// Measures a small and a replicated cluster.
pub async fn run(setting: &Setting) -> Result<Vec<Row>> {
    let shapes = [
        Shape { members: 1, nodes: 1, fake_nodes: 0 },
        Shape { members: 1, nodes: 3, fake_nodes: 0 },
        Shape { members: 3, nodes: 3, fake_nodes: 0 },
    ];
    let mut rows = Vec::new();
    for shape in shapes {
        let mut samples = Samples::default();
        for _ in 0..setting.runs {
            let (cluster, took) = Cluster::ready(&setting.binary, shape).await?;
            samples.push_millis(took);
            cluster.stop().await?;
        }
        let what = format!("`up` to all nodes Ready, {} member(s), {} node(s)", shape.members, shape.nodes);
        rows.push(Row::new(what, "ms", &samples));
    }
    Ok(rows)
}
