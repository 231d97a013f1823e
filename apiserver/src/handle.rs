//! A request's way through the server: identify, authenticate, impersonate, authorize, dispatch, answer.

mod start;

pub use start::StartError;

use std::sync::Arc;
use std::time::Instant;

use api::status::Status;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admission::Programs;
use crate::admission::turns::Turns;
use crate::aggregation::Aggregation;
use crate::audit::{Answered, Audit};
use crate::auth::{Attributes, Authenticator, Authorizer, Identity};
use crate::body::Body;
use crate::compress::compressed;
use crate::config::Config;
use crate::error::{Failure, Outcome};
use crate::flow::Flow;
use crate::flow::quota::{Quotas, What};
use crate::in_process::InProcess;
use crate::metrics::Metrics;
use crate::node_proxy::NodeProxy;
use crate::peer::Peer;
use crate::pki::MASTERS_GROUP;
use crate::proxy::Proxy;
use crate::proxy::forward::{AsIs, Onward};
use crate::reach::services::Services;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::request::RequestInfo;
use crate::resource_metrics::Summaries;
use crate::stall::Patience;
use crate::storage::Storage;
use crate::verbs::{Answer, Call};
use crate::webhook::Webhooks;
use crate::{aggregation, auth, dispatch, members, proxy, response, websocket};

/// The API server: stateless but for caches of what is in the store.
pub struct ApiServer {
    pub(crate) storage: Arc<Storage>,
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) node_proxy: NodeProxy,
    pub(crate) proxy: Proxy,
    pub(crate) aggregation: Arc<Aggregation>,
    pub(crate) services: Services,
    pub(crate) webhooks: Webhooks,
    /// What nodes have said of what they use.
    pub(crate) summaries: Summaries,
    pub(crate) metrics: Arc<Metrics>,
    /// Of webhooks and admission policies, compiled.
    pub(crate) programs: Programs,
    /// Of requests that charge quotas.
    pub(crate) turns: Turns,
    pub(crate) flow: Arc<Flow>,
    quotas: Arc<Quotas>,
    pub(crate) audit: Option<Audit>,
    /// Becomes true when the server is about to end: watches end then.
    pub(crate) draining: watch::Sender<bool>,
    /// What feeds the cache, seals what lies in clear or under an old key, looks after custom
    /// resources and the endpoints of Service `default/kubernetes`;
    /// they end with the server.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(JoinHandle::abort);
    }
}

impl ApiServer {
    /// A client of this server in the same process, which acts as `identity`.
    pub fn in_process(self: &Arc<Self>, identity: Identity) -> InProcess {
        InProcess::new(self.clone(), identity)
    }

    /// Ends all watches, so that their connections can close.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Answers one request of `peer`.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let id = audit_id(&parts);
        let answer = Box::pin(self.answer(&parts, body, &peer, &id)).await;
        let mut response = answer.unwrap_or_else(response::failure);
        let as_is = response.extensions_mut().remove::<AsIs>().is_some();
        if !as_is {
            response = compressed(&parts, response).await;
        }
        // Of the streams only watches are offered over WebSocket here; others come upgraded already.
        if let Some(relay) = response.extensions_mut().remove::<Relay>() {
            match parts.extensions.remove::<OnUpgrade>() {
                Some(client) => {
                    parts.extensions.remove::<Patience>().unwrap_or_default().begin();
                    relay.begin(client);
                }
                None => {
                    response = response::status(&Status::bad_request("this connection can't be upgraded"))
                }
            }
        } else if !as_is && websocket::is_asked(&parts.headers) && response.body().as_bytes().is_none() {
            response = websocket::upgraded(&mut parts, response);
        }
        response.headers_mut().insert(HeaderName::from_static("audit-id"), id);
        response
    }

    async fn answer(self: &Arc<Self>, parts: &Parts, body: Body, peer: &Peer, id: &HeaderValue) -> Answer {
        let began = Timestamp::now();
        let identity = self.authenticator.authenticate(&parts.headers, peer).await;
        let caller = identity.map_err(|_| Status::unauthorized())?;
        let identity = auth::act_as(&parts.headers, caller.clone(), &self.authorizer)?;
        let query = parts.uri.query().unwrap_or_default();
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), query, &self.registry);
        let clock = Instant::now();
        let answer = self.judge_and_serve(parts, body, &identity, &info, peer).await;
        let code = answer.as_ref().map_or_else(Failure::code, |response| response.status().as_u16());
        if info.is_resource {
            self.metrics.answered(&info, code, clock.elapsed());
        }
        if let Some(audit) = &self.audit {
            let (info, caller, identity, ended) = (&info, &caller, &identity, Timestamp::now());
            audit.record(Answered { parts, info, caller, identity, peer, id, code, began, ended }).await;
        }
        let mut response = answer.unwrap_or_else(response::failure);
        info.warnings.put_on(&mut response);
        Ok(response)
    }

    async fn judge_and_serve(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        identity: &Identity,
        info: &RequestInfo,
        peer: &Peer,
    ) -> Answer {
        self.authorize(identity, info)?;
        let long = info.is_long_running();
        // Where nobody else can come in, nobody is kept out: an administrator must get in when nobody else does.
        if matches!(peer, Peer::Admin) {
            return self.serve_in_time(Onward { parts, body, peer }, identity, info, long).await;
        }
        let open = match identity.is_in(MASTERS_GROUP) {
            true => None,
            false => {
                Some(self.quotas.open(&identity.user, if long { What::Watches } else { What::Requests })?)
            }
        };
        // A slow client holds a connection, not a seat: its body is here before it asks for one.
        let body = self.body_at_hand(body, info).await?;
        let seats = crate::flow::seats_of(self, info);
        let seat = match self.flow.enter(identity, &Attributes::of(info), seats).await {
            Ok(seat) => seat,
            Err(refused) => {
                tracing::debug!(user = identity.user, level = %refused.class.level, why = ?refused.why, "refused");
                let mut response = crate::flow::too_many();
                refused.class.mark(&mut response);
                return Ok(response);
            }
        };
        let answer = self.serve_in_time(Onward { parts, body, peer }, identity, info, long).await;
        let mut response = answer.unwrap_or_else(response::failure);
        seat.class().mark(&mut response);
        // A watch has its seat until it begins, and counts for its user until it ends.
        if let Some(relay) = response.extensions().get::<Relay>() {
            relay.hold(open);
            return Ok(response);
        }
        Ok(if long { response.map(|body| body.holding(open)) } else { response })
    }

    async fn serve_in_time(
        self: &Arc<Self>,
        asked: Onward<'_>,
        identity: &Identity,
        info: &RequestInfo,
        long: bool,
    ) -> Answer {
        let answer = self.serve_request(asked, identity, info);
        if long {
            return answer.await;
        }
        let _in_flight = self.metrics.enter(info);
        // Writing goes on in the store if the deadline strikes; the client is told that it may have.
        tokio::time::timeout(self.config.limits.request, answer).await.unwrap_or(Err(Failure::Deadline))
    }

    /// The body of a write, read to its end; that of a read is nobody's business.
    async fn body_at_hand(&self, body: Body, info: &RequestInfo) -> Outcome<Body> {
        let passes = self.aggregation.who_serves(info).is_some();
        if info.verb.is_read() || !info.is_resource || info.is_long_running() || passes {
            return Ok(body);
        }
        let whole = tokio::time::timeout(self.config.limits.body, self.read_body(body)).await;
        Ok(Body::from(whole.map_err(|_| Failure::Deadline)??))
    }

    /// Whether `identity` may do what `info` asks for.
    ///
    /// # Errors
    /// 403 with upstream's sentence.
    pub(crate) fn authorize(&self, identity: &Identity, info: &RequestInfo) -> Outcome<()> {
        let act = Attributes::of(info);
        let decision = self.authorizer.authorize(identity, &act);
        if decision.allowed {
            return Ok(());
        }
        let refusal = act.refusal(&identity.user, &decision.reason);
        Err(Status::forbidden(&info.plural, &info.group, act.name, &refusal).into())
    }

    async fn serve_request(
        self: &Arc<Self>,
        asked: Onward<'_>,
        identity: &Identity,
        info: &RequestInfo,
    ) -> Answer {
        if let Some(other) = self.aggregation.who_serves(info) {
            return aggregation::forward::pass_on(self, &other, asked, identity).boxed().await;
        }
        let (parts, body) = (asked.parts, asked.body);
        if !info.is_resource && info.path == members::PATH {
            let body = if info.verb.is_read() { Bytes::new() } else { self.read_body(body).await? };
            return members::serve(self.config.members.as_ref(), info, &body).await;
        }
        if !info.is_resource {
            return Ok(dispatch::path(self, parts, info));
        }
        let Some(resource) = &info.resource else {
            return Ok(response::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        };
        let call = Call { server: self, info, resource, identity, headers: &parts.headers, batch: None };
        if proxy::is_asked(info) {
            return proxy::serve(call, Onward { parts, body, peer: asked.peer }).boxed().await;
        }
        let body = match info.verb.is_read() {
            true => Bytes::new(),
            false => self.read_body(body).await?,
        };
        // A verb's state is large and deep; on the heap the states of what leads to it stay small, and so do the
        // compiler's proofs about them.
        dispatch::resource(call, &body).boxed().await
    }

    /// The whole body.
    ///
    /// # Errors
    /// 413 if it is larger than a request may be, 400 if it breaks off.
    async fn read_body(&self, mut body: Body) -> Outcome<Bytes> {
        let limit = self.config.limits.body_bytes;
        let (mut whole, mut size) = (BytesMut::new(), 0);
        // A client that is still sending sees a broken pipe, not our answer. So what is too large is read on
        // for a while, and forgotten.
        while size <= DISCARD_FACTOR * limit
            && let Some(frame) = body.frame().await
        {
            let broken = |error| Status::bad_request(format!("read the request body: {error}"));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            size += data.len();
            if size <= limit {
                whole.extend_from_slice(&data);
            }
        }
        if size > limit { Err(Status::request_too_large(limit).into()) } else { Ok(whole.freeze()) }
    }
}

/// A body is read up to this many times its limit before its client is cut off.
const DISCARD_FACTOR: usize = 4;

/// The id by which a client and the log mean the same request; a client may choose it.
fn audit_id(parts: &Parts) -> HeaderValue {
    let given = parts.headers.get("audit-id").filter(|id| (1..=64).contains(&id.len()));
    let fresh = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a uuid is plain ASCII");
    given.cloned().unwrap_or_else(fresh)
}
