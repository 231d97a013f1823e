//! Random model nodes, pods and histories.

use super::storage::{self, StorageStep};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct ModelNode {
    pub(super) zone: Option<u8>,
    pub(super) disk: u8,
    /// Value of taint `t` and whether its effect is NoSchedule, PreferNoSchedule or NoExecute (0, 1, 2).
    pub(super) taint: Option<(u8, u8)>,
    pub(super) cordoned: bool,
    pub(super) cpu: i64,
    pub(super) gpu: i64,
    pub(super) pods: i64,
    /// So many volumes of driver `d`.
    pub(super) limit: Option<u8>,
    /// Numbers and sizes in MB.
    pub(super) images: BTreeMap<u8, i64>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelPod {
    pub(super) app: u8,
    pub(super) cpu: i64,
    /// What its runtime takes of the CPU.
    pub(super) overhead: i64,
    pub(super) gpu: i64,
    pub(super) disk: Option<u8>,
    /// Required affinity: zone is (or isn't) one of these.
    pub(super) zones: Option<(bool, Vec<u8>)>,
    /// Value of taint `t` that is tolerated; 9 tolerates every taint.
    pub(super) tolerates: Option<u8>,
    /// Address (0 is every), UDP?, port.
    pub(super) port: Option<(u8, bool, u8)>,
    pub(super) spread: Option<ModelSpread>,
    /// Number of its namespace, which its name decides.
    pub(super) namespace: u8,
    /// Must be near (apart from) these.
    pub(super) near: Option<Company>,
    pub(super) apart: Option<Company>,
    pub(super) wishes: Wishes,
    pub(super) priority: i32,
    pub(super) claims: Vec<u8>,
    /// The image of its container, and of a second one.
    pub(super) images: Vec<u8>,
}

impl ModelPod {
    /// All that it takes of the CPU.
    pub(super) fn load(&self) -> i64 {
        self.cpu + self.overhead
    }
}

/// What a pod prefers.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// Nodes of a zone, with the weight.
    pub(super) zone: Option<(i64, u8)>,
    /// To be near these; with a negative weight, to be apart from them.
    pub(super) company: Option<(i64, Company)>,
}

/// Pods of an app in the first namespace, of which so many may be disrupted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelBudget {
    pub(super) app: u8,
    pub(super) allowed: i64,
}

/// Pods of an app, by zone or by host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Company {
    pub(super) by_zone: bool,
    pub(super) app: u8,
    pub(super) of: Whose,
}

/// Of which namespaces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Whose {
    Own,
    All,
    Named(u8),
    /// By the value of label `team`.
    Team(u8),
    NamedOrTeam(u8, u8),
}

#[derive(Clone, Debug)]
pub(super) struct ModelSpread {
    pub(super) by_zone: bool,
    pub(super) skew: i64,
    pub(super) min_domains: i64,
    pub(super) app: u8,
    pub(super) honor_affinity: bool,
    pub(super) honor_taints: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    SetNode(u8, ModelNode),
    DropNode(u8),
    AddPod(u8, ModelPod),
    DropPod(u8),
    /// A namespace has this value of label `team`, or is gone.
    SetNamespace(u8, Option<u8>),
    /// A disruption budget exists like this, or is gone.
    SetBudget(u8, Option<ModelBudget>),
    /// The API server answers the oldest binding.
    Answer(bool),
    /// The watch shows a bound pod on its node.
    Show(u8),
    /// The pod that was asked first to leave is gone, or (false) refuses to.
    Leave(bool),
    /// Claims and volumes change.
    Storage(StorageStep),
    /// The API server answers the oldest write for claims.
    Written(bool),
    /// The binder, or a provisioner, does its part for the first pod that waits for it.
    Bind,
}

// ---- generation

fn model_node() -> impl Strategy<Value = ModelNode> {
    let taint = prop_oneof![3 => Just(None), 1 => (0..2u8, 0..3u8).prop_map(Some)];
    let zone = prop_oneof![1 => Just(None), 4 => (0..3u8).prop_map(Some)];
    (
        zone,
        0..2u8,
        taint,
        prop::bool::weighted(0.1),
        0..5i64,
        0..3i64,
        1..6i64,
        prop::option::weighted(0.3, 0..3u8),
        images(),
    )
        .prop_map(|(zone, disk, taint, cordoned, cpu, gpu, pods, limit, images)| ModelNode {
            zone,
            disk,
            taint,
            cordoned,
            cpu: cpu * 1000,
            gpu,
            pods,
            limit,
            images,
        })
}

fn images() -> impl Strategy<Value = BTreeMap<u8, i64>> {
    let size = prop_oneof![Just(20), 30..3000i64];
    prop_oneof![2 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(0..3u8, size, 1..3)]
}

fn model_spread() -> impl Strategy<Value = ModelSpread> {
    (any::<bool>(), 1..3i64, 1..4i64, 0..2u8, any::<bool>(), any::<bool>()).prop_map(
        |(by_zone, skew, min_domains, app, honor_affinity, honor_taints)| ModelSpread {
            by_zone,
            skew,
            min_domains,
            app,
            honor_affinity,
            honor_taints,
        },
    )
}

fn others() -> impl Strategy<Value = Option<Company>> {
    prop::option::weighted(0.2, company())
}

fn company() -> impl Strategy<Value = Company> {
    let of = prop_oneof![
        3 => Just(Whose::Own),
        1 => Just(Whose::All),
        1 => (0..NAMESPACES).prop_map(Whose::Named),
        2 => (0..2u8).prop_map(Whose::Team),
        1 => (0..NAMESPACES, 0..2u8).prop_map(|(name, team)| Whose::NamedOrTeam(name, team)),
    ];
    (any::<bool>(), 0..2u8, of).prop_map(|(by_zone, app, of)| Company { by_zone, app, of })
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let weight = || prop_oneof![Just(1), 2..100i64];
    let zone = prop::option::weighted(0.3, (weight(), 0..3u8));
    let signed = (any::<bool>(), weight()).prop_map(|(near, weight)| if near { weight } else { -weight });
    let company = prop::option::weighted(0.3, (signed, company()));
    (zone, company).prop_map(|(zone, company)| Wishes { zone, company })
}

/// How many namespaces there are.
pub(super) const NAMESPACES: u8 = 3;
/// Pods up to this number are in the first namespace, the others in the others by turns.
const FIRST_NAMESPACE: u8 = 12;
const PODS: u8 = 16;

/// The number of a pod's namespace.
pub(super) fn namespace(pod: u8) -> u8 {
    if pod < FIRST_NAMESPACE { 0 } else { 1 + pod % (NAMESPACES - 1) }
}

/// The name of a namespace.
pub(super) fn namespace_name(number: u8) -> String {
    if number == 0 { "default".to_owned() } else { format!("ns{number}") }
}

fn budget() -> impl Strategy<Value = ModelBudget> {
    (0..2u8, 0..3i64).prop_map(|(app, allowed)| ModelBudget { app, allowed })
}

fn pod_of(name: u8, pod: ModelPod) -> Step {
    // Claims belong to a namespace; all of them are in the first.
    let claims = if namespace(name) == 0 { pod.claims } else { Vec::new() };
    Step::AddPod(name, ModelPod { namespace: namespace(name), claims, ..pod })
}

fn claims() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => Just(Vec::new()),
        3 => (0..4u8).prop_map(|claim| vec![claim]),
        1 => (0..4u8, 1..4u8).prop_map(|(claim, more)| vec![claim, (claim + more) % 4]),
    ]
}

fn model_pod() -> impl Strategy<Value = ModelPod> {
    let zones = (any::<bool>(), prop::collection::vec(0..3u8, 1..3));
    let rare = |probability| prop::option::weighted(probability, 0..2u8);
    let tolerates = prop_oneof![2 => Just(None), 1 => (0..2u8).prop_map(Some), 1 => Just(Some(9))];
    let port = prop::option::weighted(0.2, (0..3u8, any::<bool>(), 1..3u8));
    (
        (0..2u8, 0..7i64, prop_oneof![4 => Just(0), 1 => 1..3i64]),
        (rare(0.2), prop::option::weighted(0.2, zones), tolerates, port),
        (prop::option::weighted(0.3, model_spread()), others(), others(), 0..2i32, claims()),
        (prop::collection::vec(0..3u8, 1..3), prop_oneof![3 => Just(0), 1 => Just(100)], wishes()),
    )
        .prop_map(
            |(
                (app, cpu, gpu),
                (disk, zones, tolerates, port),
                (spread, near, apart, priority, claims),
                (images, overhead, wishes),
            )| {
                ModelPod {
                    app,
                    namespace: 0,
                    cpu: cpu * 250,
                    overhead,
                    gpu,
                    disk,
                    zones,
                    tolerates,
                    port,
                    spread,
                    near,
                    apart,
                    wishes,
                    priority,
                    claims,
                    images,
                }
            },
        )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5u8, model_node()).prop_map(|(name, node)| Step::SetNode(name, node)),
        1 => (0..5u8).prop_map(Step::DropNode),
        7 => (0..PODS, model_pod()).prop_map(|(name, pod)| pod_of(name, pod)),
        3 => (0..PODS).prop_map(Step::DropPod),
        1 => (0..NAMESPACES, prop::option::weighted(0.8, 0..2u8))
            .prop_map(|(name, team)| Step::SetNamespace(name, team)),
        1 => (0..3u8, prop::option::weighted(0.8, budget()))
            .prop_map(|(name, budget)| Step::SetBudget(name, budget)),
        4 => prop::bool::weighted(0.8).prop_map(Step::Answer),
        3 => (0..PODS).prop_map(Step::Show),
        3 => prop::bool::weighted(0.9).prop_map(Step::Leave),
        5 => storage::step().prop_map(Step::Storage),
        3 => prop::bool::weighted(0.8).prop_map(Step::Written),
        3 => Just(Step::Bind),
    ]
}
