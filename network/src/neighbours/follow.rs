//! Keeps the ways to other machines' pods as the Nodes have it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use client::informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rtnetlink::Handle;
use tokio::sync::Notify;

use super::tunnel::End;
use super::{Way, address, ways};
use crate::Settings;
use crate::pod::addresses::Range;
use crate::pod::link::LinkError;

/// Between tries when the kernel refused.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the ways until `shutdown` is requested, and leaves them then: pods stay, too.
pub async fn follow(client: kube::Client, settings: Settings, handle: Handle, shutdown: Shutdown) {
    let changed = Arc::new(Notify::new());
    let on_change = changed.clone();
    let nodes =
        Informer::builder(Api::<Node>::all(client)).on_change(move |_| on_change.notify_one()).start();
    let end = End { handle, gateway: settings.pods.gateway() };
    let mut follower = Follower::new(end, settings.node);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            () = changed.notified() => {}
        }
        let store = nodes.store();
        // Half of the nodes would cut the ways to the other half.
        if !store.is_synced() {
            continue;
        }
        let all = store.list();
        let own = store.get(&ObjectKey::cluster(&follower.node)).and_then(|node| address(&node));
        if let Err(error) = follower.bring(own, all.iter().map(|node| &**node)).await {
            tracing::warn!(%error, "make the ways to other nodes' pods");
            let again = changed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(RETRY).await;
                again.notify_one();
            });
        }
    }
    nodes.shutdown().await;
}

/// What the kernel was told.
pub struct Follower {
    end: End,
    node: String,
    /// What the kernel was told; a way of an earlier run isn't known, only where it leads.
    made: Option<BTreeMap<Range, Option<Way>>>,
    /// Where this machine's end of the tunnel is.
    tunnel: Option<Ipv4Addr>,
}

impl Follower {
    /// Of the node of this name; nothing is known yet of what an earlier run made.
    pub fn new(end: End, node: String) -> Self {
        Self { end, node, made: None, tunnel: None }
    }

    /// Makes the ways that are missing to these nodes and removes those that nobody needs. `own` is the address of
    /// this machine, if it is known.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn bring<'a>(
        &mut self,
        own: Option<Ipv4Addr>,
        nodes: impl Iterator<Item = &'a Node> + Clone,
    ) -> Result<(), LinkError> {
        let wanted = ways(&self.node, nodes, &self.end.links().await?);
        if self.made.is_none() {
            self.made = Some(self.end.made().await?.into_iter().map(|range| (range, None)).collect());
        }
        let made = self.made.get_or_insert_default();
        let gone: Vec<Range> = made.keys().filter(|range| !wanted.contains_key(range)).copied().collect();
        for range in gone {
            self.end.remove(range).await?;
            made.remove(&range);
        }
        let is_tunnel = |way: &Way| matches!(way, Way::Tunnel(_));
        if let Some(own) = own.filter(|own| self.tunnel != Some(*own) && wanted.values().any(is_tunnel)) {
            self.end.open(own).await?;
            self.tunnel = Some(own);
        }
        for (range, way) in wanted {
            if made.get(&range) != Some(&Some(way)) {
                self.end.make(range, way).await?;
                made.insert(range, Some(way));
                tracing::info!(%range, ?way, "the way to another node's pods");
            }
        }
        Ok(())
    }
}
