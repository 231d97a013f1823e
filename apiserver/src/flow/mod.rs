//! Priority and fairness: who is served when more is asked than can be served at once.
//!
//! A request is classified by the FlowSchemas ([`schema`]) and served at a priority level ([`level`]), which are
//! objects of the API with upstream's defaults (`bootstrap/flow_control.yaml`). What finds no seat waits its turn,
//! what finds no queue or waits too long is told to come back (429 with Retry-After). The decisions are values;
//! here is the lock around them, and the tasks that wait.
//!
//! Seats are lent as long as they are idle. A level that wants its own back takes them at once, so for a moment more
//! requests may run than there are seats; upstream moves limits every ten seconds and lets the owner wait instead.

pub mod feed;
mod gate;
pub mod level;
pub mod quota;
pub mod schema;
mod shuffle;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::auth::{Attributes, Identity};
use crate::body::Body;
use crate::flow::gate::Gate;
use crate::flow::level::{Arrival, Rejection, RequestId};
use crate::flow::tally::Tally;
use crate::handle::ApiServer;
use crate::metrics::Text;
use crate::request::{RequestInfo, Verb};
use crate::response;
use crate::storage::key::Key;

const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Decides who is served, and lets the others wait.
pub struct Flow {
    state: Mutex<State>,
    /// The monotonic clock of the decisions starts here.
    epoch: Instant,
    /// How long a request may wait for a seat.
    patience: Duration,
}

struct State {
    gate: Gate,
    tally: Tally,
    next: RequestId,
    waiting: std::collections::HashMap<RequestId, oneshot::Sender<()>>,
}

/// A seat, or several; given back when it is dropped.
pub struct Seat {
    flow: Arc<Flow>,
    id: RequestId,
    class: Class,
}

/// How a request was classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Name of the FlowSchema.
    pub schema: Arc<str>,
    /// Name of the priority level.
    pub level: Arc<str>,
    schema_uid: Arc<str>,
    level_uid: Arc<str>,
}

/// A request that is not served now.
#[derive(Debug)]
pub struct Refused {
    /// How it was classified.
    pub class: Class,
    /// Why.
    pub why: Rejection,
}

impl Flow {
    /// Serves at most `seats` requests at once, as upstream's default objects say until others are known.
    pub fn new(seats: u32, patience: Duration) -> Arc<Self> {
        let state = State {
            gate: Gate::new(seats, &defaults()),
            tally: Tally::default(),
            next: 0,
            waiting: Default::default(),
        };
        Arc::new(Self { state: Mutex::new(state), epoch: Instant::now(), patience })
    }

    /// Goes by these FlowSchemas and PriorityLevelConfigurations from now on.
    pub fn configure(&self, objects: &[Value]) {
        let objects = if objects.is_empty() { &defaults()[..] } else { objects };
        let now = self.now();
        let mut state = self.state.lock();
        state.gate.configure(objects);
        state.dispatch(now);
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// If there is no place to wait, or it took too long.
    pub async fn enter(
        self: &Arc<Self>,
        who: &Identity,
        act: &Attributes<'_>,
        seats: u32,
    ) -> Result<Seat, Refused> {
        let (id, class, turn) = self.arrive(who, act, seats)?;
        let seat = Seat { flow: self.clone(), id, class };
        let Some(turn) = turn else { return Ok(seat) };
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(())) => Ok(seat),
            _ => {
                let class = seat.class.clone();
                self.state.lock().tally.rejected(&class, Rejection::TimeOut);
                Err(Refused { class, why: Rejection::TimeOut })
            }
        }
    }

    fn arrive(
        &self,
        who: &Identity,
        act: &Attributes<'_>,
        seats: u32,
    ) -> Result<(RequestId, Class, Option<oneshot::Receiver<()>>), Refused> {
        let now = self.now();
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        let (class, arrival) = state.gate.arrive(id, who, act, seats, now);
        match arrival {
            Arrival::Rejected(why) => {
                state.tally.rejected(&class, why);
                Err(Refused { class, why })
            }
            Arrival::Served => {
                state.tally.dispatched(&class);
                Ok((id, class, None))
            }
            Arrival::Waits => {
                let (turn, receiver) = oneshot::channel();
                state.waiting.insert(id, turn);
                state.tally.dispatched(&class);
                state.dispatch(now);
                Ok((id, class, Some(receiver)))
            }
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Appends the metrics, under upstream's names.
    pub fn render(&self, text: &mut Text) {
        let state = self.state.lock();
        state.tally.render(text);
        state.gate.render(text);
    }
}

impl State {
    fn dispatch(&mut self, now: Duration) {
        for begun in self.gate.dispatch(now) {
            if let Some(turn) = self.waiting.remove(&begun) {
                // Who has just given up gives the seat back when it is dropped.
                let _ = turn.send(());
            }
        }
    }
}

impl Seat {
    /// How the request was classified.
    pub fn class(&self) -> &Class {
        &self.class
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = self.flow.now();
        let mut state = self.flow.state.lock();
        state.waiting.remove(&self.id);
        state.gate.leave(self.id, &self.class, now);
        state.dispatch(now);
    }
}

impl Class {
    /// Tells the client how it was classified.
    pub fn mark(&self, response: &mut Response<Body>) {
        for (name, uid) in [(SCHEMA_HEADER, &self.schema_uid), (LEVEL_HEADER, &self.level_uid)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Objects in a list that are worth a seat, and the most seats of a list (upstream's numbers).
const OBJECTS_PER_SEAT: usize = 100;
const MOST_SEATS: usize = 10;

/// How many seats the request takes: a long list takes more than others.
pub fn seats_of(server: &ApiServer, info: &RequestInfo) -> u32 {
    let (Verb::List, Some(resource)) = (info.verb, &info.resource) else { return 1 };
    let stored = server.storage.cache.count(&Key::Resource(resource).to_bytes());
    let limit = info.query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    let objects = stored.min(limit.unwrap_or(usize::MAX));
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, MOST_SEATS)).unwrap_or(1)
}

/// "Come back in a second", in upstream's form.
pub fn too_many() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = response::text(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn defaults() -> Vec<Value> {
    let objects = crate::bootstrap::objects();
    objects.into_iter().filter(|object| feed::is_ours(api::object::kind(object))).collect()
}

#[cfg(test)]
mod tests;
