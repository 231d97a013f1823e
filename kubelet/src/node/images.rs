//! The images that a node tells of, so that pods come where their images are.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use k8s_openapi::api::core::v1::ContainerImage;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::image::Image;
use crate::node::object::Health;
use crate::runtime::Runtime;

/// Between two looks. Upstream looks every 30 s and reports every 10 s.
const INTERVAL: Duration = Duration::from_secs(10);
/// As many as upstream tells of.
const MOST: usize = 50;
/// Names of one image that upstream tells.
const NAMES: usize = 5;

/// An image that a node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeImage {
    /// Those by digest before those by tag.
    pub names: Vec<String>,
    /// In bytes.
    pub size: u64,
}

impl From<Image> for NodeImage {
    fn from(image: Image) -> Self {
        let (digests, tags): (Vec<_>, Vec<_>) = image.names.into_iter().partition(|name| name.contains('@'));
        Self { names: [digests, tags].concat(), size: image.size }
    }
}

/// Those that are told of, the biggest first.
pub fn chosen(mut all: Vec<NodeImage>) -> Vec<NodeImage> {
    // Equal sizes in an order of their own: what is told must not change by itself.
    all.sort_by(|a, b| (Reverse(a.size), &a.names).cmp(&(Reverse(b.size), &b.names)));
    all.truncate(MOST);
    all.iter_mut().for_each(|image| image.names.truncate(NAMES));
    all
}

/// As the Node's status has them.
pub fn told(images: &[NodeImage]) -> Vec<ContainerImage> {
    let told = images.iter().map(|image| ContainerImage {
        names: Some(image.names.clone()).filter(|names| !names.is_empty()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    told.collect()
}

/// Looks until asked to stop, and tells whenever there are others.
pub async fn watch(runtime: Arc<dyn Runtime>, health: watch::Sender<Health>, shutdown: Shutdown) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        match runtime.images().await {
            Ok(images) => {
                let images = chosen(images);
                health.send_if_modified(|told| {
                    let changed = told.images != images;
                    told.images = images;
                    changed
                });
            }
            // What was told stays: a runtime that is just being restarted has its images still.
            Err(error) => tracing::debug!(error = %error.chain(), "list the images"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::image::{Digest, ImageConfig};

    fn image(size: u64, names: &[&str]) -> NodeImage {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let config = ImageConfig::default();
        Image { id: Digest::of(b"x"), names, config, layers: Vec::new(), size, added: Timestamp::UNIX_EPOCH }
            .into()
    }

    #[test]
    fn the_biggest_are_told_of_by_digest_and_tag() {
        let many = ["r/a:1", "r/a:2", "r/a:3", "r/a:4", "r/a:5", "r/a@sha256:0"];
        let told = told(&chosen(vec![image(1, &["r/b:1"]), image(7, &many), image(1, &["r/a:9"])]));
        let rows: Vec<_> = told
            .iter()
            .map(|image| (image.size_bytes, image.names.clone().unwrap_or_default().join(" ")))
            .collect();
        let want = [(7, "r/a@sha256:0 r/a:1 r/a:2 r/a:3 r/a:4"), (1, "r/a:9"), (1, "r/b:1")];
        assert_eq!(rows, want.map(|(size, names)| (Some(size), names.to_owned())));
    }

    #[test]
    fn no_more_than_fifty_are_told_of() {
        let all = (0..60).map(|size| image(size, &[])).collect();
        let sizes: Vec<u64> = chosen(all).iter().map(|image| image.size).collect();
        assert_eq!(sizes, (10..60).rev().collect::<Vec<_>>());
    }
}
