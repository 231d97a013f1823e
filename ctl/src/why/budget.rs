//! Disruption budgets: which of them an eviction would break.

use serde_json::Value;

use super::answer::place;
use super::view::{View, number, selects};

/// The budgets that allow no disruption of `pod` at present.
pub fn broken_by(pod: &Value, view: &View) -> Vec<String> {
    let covers = |budget: &&Value| {
        selects(&budget["spec"]["selector"], pod) && number(budget, "/status/disruptionsAllowed") == 0
    };
    view.of("PodDisruptionBudget", api::object::namespace(pod)).filter(covers).map(place).collect()
}
