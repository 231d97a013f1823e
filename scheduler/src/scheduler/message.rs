//! What the scheduler learns, and what it wants done.

use super::ClaimWrite;
use crate::budget::Budget;
use crate::gang::{GroupInfo, Said};
use crate::name::{NodeName, PodKey, PodUid};
use crate::namespace::NamespaceInfo;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::storage::StorageEvent;
use std::sync::Arc;

/// Something the scheduler learns.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node exists like this.
    Node(NodeInfo),
    /// A node is gone.
    NodeGone(NodeName),
    /// A pod exists like this.
    Pod(PodInfo),
    /// A pod is gone.
    PodGone(PodKey),
    /// A disruption budget exists like this.
    Budget(Budget),
    /// A disruption budget is gone.
    BudgetGone(PodKey),
    /// A PodGroup exists like this.
    Group(GroupInfo),
    /// A PodGroup is gone.
    GroupGone(PodKey),
    /// A namespace exists like this.
    Namespace(NamespaceInfo),
    /// A namespace is gone.
    NamespaceGone(Arc<str>),
    /// Claims, volumes or what belongs to them changed.
    Storage(StorageEvent),
    /// The writes for a pod's claims were accepted, or one was refused.
    Prepared {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// Whether the API server accepted all of them.
        accepted: bool,
    },
    /// A pod that was to be driven away will go; the watch tells when it is gone.
    Evicted,
    /// A pod that was to be driven away couldn't be.
    NotEvicted(PodUid),
    /// A binding was accepted or refused.
    Bound {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// Whether the API server accepted it.
        accepted: bool,
    },
}

/// Something the scheduler wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Bind this pod to this node; answer with [`Event::Bound`].
    Bind {
        /// The pod.
        pod: PodKey,
        /// Its incarnation; another one must not be bound.
        uid: PodUid,
        /// Where to.
        node: NodeName,
        /// In whose name: the `schedulerName` of the pod's profile.
        scheduler: Arc<str>,
    },
    /// Write what is to become of a pod's claims; answer with [`Event::Prepared`].
    Prepare {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// Where it will go.
        node: NodeName,
        /// At least one.
        claims: Vec<ClaimWrite>,
    },
    /// Tell the user that this pod is unschedulable.
    Report {
        /// The pod.
        pod: PodKey,
        /// Its incarnation.
        uid: PodUid,
        /// The summary, in upstream's words.
        message: Arc<str>,
        /// Where room is being made for it.
        nominated: Option<NodeName>,
        /// In whose name: the `schedulerName` of the pod's profile.
        scheduler: Arc<str>,
    },
    /// Tell the users of a PodGroup whether enough of its pods have places.
    ReportGroup {
        /// The group.
        group: PodKey,
        /// Its incarnation.
        uid: Box<str>,
        /// What its condition is to say.
        said: Said,
    },
    /// Drive this pod away, gracefully; answer with [`Event::Evicted`] or [`Event::NotEvicted`].
    Evict {
        /// The victim.
        pod: PodKey,
        /// Its incarnation; another one must not be touched.
        uid: PodUid,
        /// For whom.
        preemptor: PodUid,
        /// Where both are, or will be.
        node: NodeName,
        /// In whose name: the `schedulerName` of the preemptor's profile.
        scheduler: Arc<str>,
    },
}
