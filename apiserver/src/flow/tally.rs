//! What has become of requests, by class: the counters among the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Class;
use super::level::Rejection;
use crate::metrics::Text;

/// Counts. The number of series is bounded by the objects that configure the levels.
#[derive(Debug, Default)]
pub struct Tally {
    dispatched: BTreeMap<(Arc<str>, Arc<str>), u64>,
    rejected: BTreeMap<(Arc<str>, Arc<str>, Rejection), u64>,
}

impl Tally {
    /// A request got its place.
    pub fn dispatched(&mut self, class: &Class) {
        *self.dispatched.entry((class.level.clone(), class.schema.clone())).or_default() += 1;
    }

    /// A request was refused.
    pub fn rejected(&mut self, class: &Class, why: Rejection) {
        *self.rejected.entry((class.level.clone(), class.schema.clone(), why)).or_default() += 1;
    }

    /// Appends the counters.
    pub fn render(&self, text: &mut Text) {
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        text.family(name, "counter", "Requests that got a seat or a place to wait.");
        for ((level, schema), count) in &self.dispatched {
            text.sample(name, &[("priority_level", level), ("flow_schema", schema)], count);
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        text.family(name, "counter", "Requests that were told to come back.");
        for ((level, schema, why), count) in &self.rejected {
            let labels = [("priority_level", &**level), ("flow_schema", &**schema), ("reason", why.as_str())];
            text.sample(name, &labels, count);
        }
    }
}
