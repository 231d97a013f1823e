//! The look of the ranges of Services' addresses.

use crate::{caches::Caches, driver::Controller, plan::Plan, service_cidr};
use client::informer::ObjectKey;
use jiff::Timestamp;

/// The ServiceCIDR controller.
pub struct ServiceRanges(pub Caches);

impl Controller for ServiceRanges {
    type Key = ObjectKey;
    const NAME: &'static str = "service-cidr-controller";

    async fn look(&self, key: &ObjectKey, now: Timestamp) -> kube::Result<Plan> {
        let Some(range) = self.0.service_ranges.get(key) else { return Ok(Plan::nothing()) };
        let view = match range.metadata.deletion_timestamp {
            Some(_) => service_cidr::Snapshot {
                ranges: self.0.service_ranges.list(),
                addresses: self.0.service_addresses.list(),
            },
            None => service_cidr::Snapshot::default(),
        };
        Ok(service_cidr::reconcile(&range, &view, now))
    }
}
