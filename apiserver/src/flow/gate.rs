//! All priority levels together: classifies requests, and lends seats between levels. No clock, no task.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Class;
use super::level::{Arrival, Level, RequestId};
use super::schema::{FlowSchema, PriorityLevel};
use crate::auth::{Attributes, Identity};
use crate::metrics::Text;

/// The level that takes what no other takes.
const CATCH_ALL: &str = "catch-all";

/// Everything that is decided on.
pub struct Gate {
    seats: u32,
    /// In the order in which they are asked.
    schemas: Vec<(FlowSchema, Class)>,
    levels: BTreeMap<Arc<str>, Level>,
}

impl Gate {
    /// Goes by these objects.
    pub fn new(seats: u32, objects: &[Value]) -> Self {
        let mut gate = Self { seats, schemas: Vec::new(), levels: BTreeMap::new() };
        gate.configure(objects);
        gate
    }

    /// Goes by these objects from now on. A level that is gone runs empty first.
    pub fn configure(&mut self, objects: &[Value]) {
        let of_kind = |kind: &'static str| objects.iter().filter(move |o| api::object::kind(o) == kind);
        let levels: Vec<PriorityLevel> =
            of_kind("PriorityLevelConfiguration").map(PriorityLevel::of).collect();
        for level in &levels {
            let shape = level.shape(&levels, self.seats);
            match self.levels.get_mut(level.name.as_str()) {
                Some(living) => living.reshape(shape),
                None => drop(self.levels.insert(level.name.as_str().into(), Level::new(shape))),
            }
        }
        let named = |name: &str| levels.iter().any(|level| level.name == name);
        self.levels.retain(|name, level| named(name) || level.running() + level.waiting() > 0);
        let mut schemas: Vec<FlowSchema> = of_kind("FlowSchema").filter_map(FlowSchema::of).collect();
        schemas.sort_by(|a, b| (a.matching_precedence, &a.name).cmp(&(b.matching_precedence, &b.name)));
        let classified = schemas.into_iter().filter_map(|schema| {
            let level = levels.iter().find(|level| level.name == schema.level())?;
            let class = class(&schema, level);
            Some((schema, class))
        });
        self.schemas = classified.collect();
    }

    /// A request arrives; `seats` is what it takes.
    pub fn arrive(
        &mut self,
        id: RequestId,
        who: &Identity,
        act: &Attributes<'_>,
        seats: u32,
        now: Duration,
    ) -> (Class, Arrival) {
        let Some((schema, class)) = self.schemas.iter().find(|(schema, _)| schema.matches(who, act)) else {
            return (unclassified(), Arrival::Served);
        };
        let mut hasher = DefaultHasher::new();
        (&schema.name, schema.distinguisher(who, act)).hash(&mut hasher);
        let (hash, class) = (hasher.finish(), class.clone());
        let spare = self.spare();
        let level = self.levels.get_mut(&class.level).expect("a schema without its level isn't kept");
        (class, level.arrive(id, hash, seats, spare, now))
    }

    /// A request is done, or gives up.
    pub fn leave(&mut self, id: RequestId, class: &Class, now: Duration) {
        if let Some(level) = self.levels.get_mut(&class.level) {
            let _known = level.finish(id, now) || level.abandon(id, now);
        }
    }

    /// Serves whom there is room for now.
    pub fn dispatch(&mut self, now: Duration) -> Vec<RequestId> {
        let mut begun = Vec::new();
        let waiting: Vec<Arc<str>> = self
            .levels
            .iter()
            .filter(|(_, level)| level.waiting() > 0)
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let spare = self.spare();
            let level = self.levels.get_mut(&name).expect("it was there a moment ago");
            begun.extend(level.dispatch(spare, now));
        }
        begun
    }

    /// Seats that are lent to nobody and wanted by nobody.
    fn spare(&self) -> u32 {
        let idle: u32 = self.levels.values().map(Level::idle_lendable).sum();
        let borrowed: u32 = self.levels.values().map(Level::borrowed).sum();
        idle.saturating_sub(borrowed)
    }

    /// Appends what each level has and uses.
    pub fn render(&self, text: &mut Text) {
        type Gauge = (&'static str, &'static str, fn(&Level) -> u64);
        let gauges: [Gauge; 4] = [
            ("apiserver_flowcontrol_nominal_limit_seats", "Seats of the level's own.", |l| {
                l.shape.nominal.into()
            }),
            ("apiserver_flowcontrol_current_executing_seats", "Seats in use.", |l| l.seats().into()),
            ("apiserver_flowcontrol_current_executing_requests", "Requests served.", |l| l.running() as u64),
            ("apiserver_flowcontrol_current_inqueue_requests", "Requests waiting.", |l| l.waiting() as u64),
        ];
        for (name, help, value) in gauges {
            text.family(name, "gauge", help);
            for (level, state) in &self.levels {
                text.sample(name, &[("priority_level", level)], value(state));
            }
        }
    }
}

fn class(schema: &FlowSchema, level: &PriorityLevel) -> Class {
    Class {
        schema: schema.name.as_str().into(),
        level: level.name.as_str().into(),
        schema_uid: schema.uid.as_str().into(),
        level_uid: level.uid.as_str().into(),
    }
}

/// Only an administrator who deleted the catch-all schema gets here; refusing everybody would not help him.
fn unclassified() -> Class {
    Class { schema: CATCH_ALL.into(), level: CATCH_ALL.into(), schema_uid: "".into(), level_uid: "".into() }
}
