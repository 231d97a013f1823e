//! Whom a change of a range of Services' addresses, or of one of them, concerns: ranges that wait to be gone.

use super::Wires;
use crate::service_cidr;
use client::informer::{Change, ObjectKey};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};

impl Wires {
    pub fn service_range(&self, change: &Change<ServiceCIDR>) {
        self.own(change, &self.queues.service_ranges);
        let Some(range) = change.object() else { return };
        let is_ending = |other: &ServiceCIDR| other.metadata.deletion_timestamp.is_some();
        self.ranges(|other| is_ending(other) && service_cidr::overlap(range, other));
    }

    pub fn service_address(&self, change: &Change<IPAddress>) {
        self.collect(change);
        if let Some(address) = change.object().and_then(|address| service_cidr::given_out(address)) {
            self.ranges(|range| service_cidr::concerns(range, address));
        }
    }

    fn ranges(&self, concerned: impl Fn(&ServiceCIDR) -> bool) {
        let Some(caches) = self.caches.get() else { return };
        for range in caches.service_ranges.list().into_iter().filter(|range| concerned(range)) {
            self.queues.service_ranges.add(ObjectKey::of(&*range));
        }
    }
}
