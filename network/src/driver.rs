//! Keeps the machine's rules and names as the API server's Services and EndpointSlices have them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;
use std::time::Duration;

use client::Shutdown;
use client::informer::{Informer, ObjectKey, Store};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use rtnetlink::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::conntrack::{UdpRoutes, forget};
use crate::dns::server::{Resolver, serve, upstream};
use crate::dns::zone::{View, Zone};
use crate::neighbours::follow::follow;
use crate::nft::{self, Kept, NftError};
use crate::pod::addresses::Range;
use crate::pod::link::{self, LinkError, Via};
use crate::pod::namespace::BRIDGE;
use crate::policy::keeper::keep;
use crate::service::doors::Doors;
use crate::service::health::{Check, checks};
use crate::service::plan::{Route, SERVICE_NAME, routes};
use crate::service::table::{TABLE, TURN_BACK, frame};
use crate::table::Table;

/// Changes that come together are told to the kernel together: between two looks there is at least this. One that
/// comes alone doesn't wait.
const TOGETHER: Duration = Duration::from_millis(20);
/// Between tries when another process has this part, or the kernel refused.
const RETRY: Duration = Duration::from_secs(2);
/// A name of the machine's network: who has it routes its Services. It ends with its process, however that ends.
const TURN: &str = "amoeba/services";

/// What a machine's network is made by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node whose view counts for local traffic policies.
    pub node: String,
    /// The node's address: by it pods are known to be of this machine.
    pub address: IpAddr,
    /// The node's own range of pod addresses.
    pub pods: Range,
    /// What is the same on all machines.
    pub cluster: ClusterNetwork,
}

/// What all machines of a cluster agree on.
#[derive(Clone, Debug)]
pub struct ClusterNetwork {
    /// The range of all pods.
    pub pods: Range,
    /// The range of Services' addresses.
    pub services: Range,
    /// The address of the cluster's DNS.
    pub dns: Ipv4Addr,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
}

/// Why Services aren't routed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules couldn't be changed.
    #[error(transparent)]
    Rules(#[from] NftError),
    /// Routes couldn't be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The domain isn't one.
    #[error("{0:?} is not a domain such as cluster.local")]
    Domain(String),
    /// The system refused.
    #[error("{attempted}")]
    System {
        /// What was attempted.
        attempted: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Routes Services and answers names until `shutdown` is requested; then takes the rules away.
///
/// Of all processes that share the machine's network one does this at a time; the others wait for its end.
///
/// # Errors
/// The machine can't do it: no `nft`, no privileges.
pub async fn run(client: kube::Client, settings: Settings, shutdown: Shutdown) -> Result<(), Error> {
    let domain = &settings.cluster.domain;
    let zone = Name::from_utf8(format!("{}.", domain.trim_end_matches('.')));
    let zone = Zone { origin: zone.map_err(|_| Error::Domain(domain.clone()))? };
    let Some(_turn) = turn(&shutdown).await else { return Ok(()) };
    tracing::info!(node = settings.node, "this agent routes the machine's Services");
    // Whoever can't even do nothing will never do anything.
    nft::run("").await?;
    // All ends with the turn: the next process that has it begins with its own.
    let mut tasks = JoinSet::new();
    let handle = prepare(&settings, &mut tasks).await?;
    tasks.spawn(follow(client.clone(), settings.clone(), handle, shutdown.clone()));
    tasks.spawn(keep(client.clone(), settings.address, shutdown.clone()));
    let changed = Arc::new(Notify::new());
    let objects = Arc::new(Objects::start(&client, &changed));
    let resolver =
        Resolver { zone, view: objects.clone(), upstream: machine_resolvers(settings.cluster.dns) };
    let names = serve(SocketAddr::from((settings.cluster.dns, 53)), Arc::new(resolver), shutdown.clone());
    tokio::select! {
        () = route(&objects, &settings, &changed, &shutdown) => Ok(()),
        ended = names => ended.map_err(|source| Error::System { attempted: "answer DNS questions", source }),
    }
}

/// Something that one process of a machine's network has, until it ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held, not used")] UnixListener);

/// Claims a name; `None` if another process has it.
pub fn claim(name: &str) -> Option<Claim> {
    let address = UnixAddr::from_abstract_name(name.as_bytes()).ok()?;
    UnixListener::bind_addr(&address).ok().map(Claim)
}

/// This process' turn; `None` if it is to end first.
async fn turn(shutdown: &Shutdown) -> Option<Claim> {
    loop {
        if let Some(turn) = claim(TURN) {
            return Some(turn);
        }
        tokio::select! {
            () = shutdown.requested() => return None,
            () = sleep(RETRY) => {}
        }
    }
}

async fn prepare(settings: &Settings, tasks: &mut JoinSet<()>) -> Result<Handle, Error> {
    let made = rtnetlink::new_connection();
    let (connection, handle, _) =
        made.map_err(|source| Error::System { attempted: "speak to the kernel's network", source })?;
    tasks.spawn(connection);
    link::bridge(&handle, BRIDGE, settings.pods).await?;
    link::extra_address(&handle, BRIDGE, settings.cluster.dns).await?;
    // The machine's own connections to Services need a way, and a source that pods can answer to.
    link::route(&handle, settings.cluster.services, Via::Bridge(BRIDGE, settings.pods.gateway())).await?;
    Ok(handle)
}

fn machine_resolvers(own: Ipv4Addr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    upstream(&text).into_iter().filter(|server| server.ip() != own).collect()
}

/// What rules and names are made from.
struct Objects {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

const BY_ADDRESS: &str = "address";
const BY_SERVICE: &str = "service";

impl Objects {
    fn start(client: &kube::Client, changed: &Arc<Notify>) -> Self {
        let (on_service, on_slice) = (changed.clone(), changed.clone());
        let services = Informer::builder(Api::<Service>::all(client.clone()))
            .index(BY_ADDRESS, |service| {
                service.spec.iter().filter_map(|spec| spec.cluster_ip.clone()).collect()
            })
            .on_change(move |_| on_service.notify_one())
            .start();
        let slices = Informer::builder(Api::<EndpointSlice>::all(client.clone()))
            .index(BY_SERVICE, |slice| service_key(slice).into_iter().collect())
            .index(BY_ADDRESS, |slice| {
                let addresses: BTreeSet<_> =
                    slice.endpoints.iter().flatten().flat_map(|e| e.addresses.first()).collect();
                addresses.into_iter().cloned().collect()
            })
            .on_change(move |_| on_slice.notify_one())
            .start();
        Self { services, slices }
    }

    fn stores(&self) -> (Store<Service>, Store<EndpointSlice>) {
        (self.services.store(), self.slices.store())
    }

    /// Half of the objects would cut the Services of the other half.
    fn are_complete(&self) -> bool {
        let (services, slices) = self.stores();
        services.is_synced() && slices.is_synced()
    }

    fn routes(&self, settings: &Settings) -> Vec<Route> {
        let (services, slices) = (self.services.store().list(), self.slices.store().list());
        let routes = routes(&settings.node, services.iter().map(|s| &**s), slices.iter().map(|s| &**s));
        // The DNS has no pods: it answers under its address itself.
        routes.into_iter().filter(|route| route.cluster_ip != settings.cluster.dns).collect()
    }

    fn checks(&self, settings: &Settings) -> BTreeMap<u16, Check> {
        let (services, slices) = (self.services.store().list(), self.slices.store().list());
        checks(&settings.node, services.iter().map(|s| &**s), slices.iter().map(|s| &**s))
    }
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{name}", slice.metadata.namespace.as_deref()?))
}

impl View for Objects {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.store().get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.store().by_index(BY_SERVICE, &format!("{namespace}/{name}"))
    }

    fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
        self.services.store().by_index(BY_ADDRESS, &ip.to_string()).into_iter().next()
    }

    fn slices_at(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        self.slices.store().by_index(BY_ADDRESS, &ip.to_string())
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        !self.services.store().in_namespace(namespace).is_empty()
    }
}

/// Tells the kernel what has changed, whenever something has.
async fn route(objects: &Objects, settings: &Settings, changed: &Notify, shutdown: &Shutdown) {
    let turn_back = if bridges_are_seen() { "" } else { TURN_BACK };
    let mut rules = Kept::new(TABLE, frame(&settings.cluster) + turn_back);
    let mut udp = None;
    let mut doors = Doors::default();
    let mut looks = Looks::new(changed, shutdown);
    while looks.next().await {
        if !objects.are_complete() {
            continue;
        }
        let routes = objects.routes(settings);
        if looks.went_well(rules.bring(Table::of(&routes)).await) {
            // After the rules: who is told of pods here is led to them.
            doors.bring(objects.checks(settings)).await;
            forget_what_is_lost(&mut udp, UdpRoutes::of(&routes)).await;
        }
    }
    if let Err(error) = rules.remove().await {
        tracing::warn!(%error, "take the rules away");
    }
}

/// When to look: whenever something has changed, but not at once after another look, and again a while after one that
/// failed. What the kernel refuses now, as when memory is short, it takes later.
pub(crate) struct Looks<'a> {
    changed: &'a Notify,
    shutdown: &'a Shutdown,
    failed: bool,
    /// When the next look may begin.
    earliest: Instant,
}

impl<'a> Looks<'a> {
    /// Nobody has looked yet.
    pub(crate) fn new(changed: &'a Notify, shutdown: &'a Shutdown) -> Self {
        Self { changed, shutdown, failed: false, earliest: Instant::now() }
    }

    /// Waits until it is time; `false` once `shutdown` is requested.
    pub(crate) async fn next(&mut self) -> bool {
        let again = std::mem::take(&mut self.failed);
        let due = async {
            if again {
                return sleep(RETRY).await;
            }
            self.changed.notified().await;
            sleep_until(self.earliest).await;
        };
        let goes_on = tokio::select! {
            () = self.shutdown.requested() => false,
            () = due => true,
        };
        self.earliest = Instant::now() + TOGETHER;
        goes_on
    }

    /// Remembers how the look ended.
    pub(crate) fn went_well(&mut self, ended: Result<(), NftError>) -> bool {
        if let Err(error) = &ended {
            tracing::error!(%error, "change the kernel's rules; it is tried again");
        }
        self.failed = ended.is_err();
        self.earliest = Instant::now() + TOGETHER;
        !self.failed
    }
}

/// Whether netfilter sees what passes a bridge.
fn bridges_are_seen() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    setting.is_ok_and(|value| value.trim() == "1")
}

/// After the rules, so that no flow is remembered anew by old ones. What an earlier run led isn't known: then all
/// flows are looked at.
async fn forget_what_is_lost(known: &mut Option<UdpRoutes>, now: UdpRoutes) {
    let lost = known.as_ref().is_none_or(|old| now.lost_any(old));
    *known = Some(now.clone());
    if !lost {
        return;
    }
    match tokio::task::spawn_blocking(move || forget(&now)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(flows)) => tracing::debug!(flows, "forgot UDP flows to endpoints that are gone"),
        Ok(Err(error)) => tracing::warn!(%error, "forget UDP flows to endpoints that are gone"),
        Err(error) => tracing::warn!(%error, "look at the UDP flows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_kernel_refuses_is_told_again_without_a_change() {
        let (changed, (trigger, shutdown)) = (Notify::new(), client::shutdown::channel());
        let mut looks = Looks::new(&changed, &shutdown);
        changed.notify_one();
        assert!(looks.next().await);
        assert!(!looks.went_well(Err(NftError::Refused("Cannot allocate memory".to_owned()))));
        assert!(looks.next().await);
        assert!(looks.went_well(Ok(())));
        trigger.request();
        assert!(!looks.next().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_only_for_those_that_came_just_before() {
        let (changed, (_trigger, shutdown)) = (Notify::new(), client::shutdown::channel());
        let mut looks = Looks::new(&changed, &shutdown);
        let begun = Instant::now();
        changed.notify_one();
        assert!(looks.next().await && looks.went_well(Ok(())));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        changed.notify_one();
        assert!(looks.next().await && looks.went_well(Ok(())));
        assert_eq!(begun.elapsed(), TOGETHER);
        sleep(TOGETHER).await;
        changed.notify_one();
        assert!(looks.next().await);
        assert_eq!(begun.elapsed(), TOGETHER * 2);
    }
}
