//! Why a control loop writes: the header `Amoeba-Cause`, by which the journal becomes a tree of causes.
//!
//! A cause is the resourceVersion of the object whose change made a loop act: the revision of the write
//! that the new one answers. It takes one way, and no controller knows of it: an informer's handlers run
//! [`because`] of the change that they are told of, a work queue keeps the newest cause of each key, and
//! the driver hands it to the client that performs the plan ([`acting`]). Other API servers ignore the header.

use http::{
    HeaderName, HeaderValue, Request,
    header::{Entry, USER_AGENT},
};
use kube::{Client, Resource, client::Body};
use std::cell::Cell;
use tower::service_fn;

/// The header of a request in which a cause is sent.
pub const HEADER: HeaderName = HeaderName::from_static("amoeba-cause");

/// The resourceVersion of the object whose change made somebody act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause(pub u64);

impl Cause {
    /// The change that led to `object` as it is; none if its version is no number, as some servers' aren't.
    pub fn of<K: Resource>(object: &K) -> Option<Cause> {
        Cause::parse(object.meta().resource_version.as_deref())
    }

    /// As [`Cause::of`], from the resourceVersion alone.
    pub fn parse(version: Option<&str>) -> Option<Cause> {
        version?.parse().ok().filter(|version| *version > 0).map(Cause)
    }
}

thread_local! {
    static CURRENT: Cell<Option<Cause>> = const { Cell::new(None) };
}

/// Runs `act`, which must not wait, with `cause` as [`current`].
pub fn because<T>(cause: Option<Cause>, act: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(cause);
    let result = act();
    CURRENT.set(outer);
    result
}

/// What this thread acts upon just now.
pub fn current() -> Option<Cause> {
    CURRENT.get()
}

/// `client`, for writes by `agent` (none leaves the client's own user agent) because of `cause`. It costs a
/// task, so it is made for a plan and not for a request.
///
/// # Panics
/// If `agent` can't be sent in a header; it is a constant of ours.
pub fn acting(client: &Client, agent: Option<&str>, cause: Option<Cause>) -> Client {
    let agent = agent.map(|agent| HeaderValue::from_str(agent).expect("a user agent of printable ASCII"));
    let (inner, namespace) = (client.clone(), client.default_namespace().to_owned());
    let service = service_fn(move |mut request: Request<Body>| {
        let (inner, headers) = (inner.clone(), request.headers_mut());
        headers.extend(agent.clone().map(|agent| (USER_AGENT, agent)));
        headers.extend(cause.map(|Cause(version)| (HEADER, HeaderValue::from(version))));
        async move { inner.send(request).await }
    });
    Client::new(service, namespace)
}

/// Names what one request answers, without the cost of a client for it.
pub fn mark<B>(request: &mut Request<B>, cause: Option<Cause>) {
    request.headers_mut().extend(cause.map(|Cause(version)| (HEADER, HeaderValue::from(version))));
}

/// Names `agent` as the author of `request`, unless somebody else is already.
pub(crate) fn sign(mut request: Request<Body>, agent: &HeaderValue) -> Request<Body> {
    if let Entry::Vacant(vacant) = request.headers_mut().entry(USER_AGENT) {
        vacant.insert(agent.clone());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_process;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, api::PostParams};
    use parking_lot::Mutex;
    use std::{convert::Infallible, sync::Arc};

    #[test]
    fn a_cause_is_in_force_within_its_scope_only() {
        let seen = because(Some(Cause(7)), || (because(None, current), current()));
        assert_eq!((seen, current()), ((None, Some(Cause(7))), None));
    }

    #[test]
    fn only_a_number_is_a_cause() {
        let parse = |version| Cause::parse(Some(version));
        assert_eq!((parse("12"), parse("0"), parse("x"), parse("")), (Some(Cause(12)), None, None, None));
    }

    #[tokio::test]
    async fn the_headers_name_author_and_cause() {
        let seen: Arc<Mutex<Vec<[Option<String>; 2]>>> = Arc::default();
        let log = seen.clone();
        let service = service_fn(move |request: Request<Body>| {
            let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            log.lock().push([text(USER_AGENT), text(HEADER)]);
            std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::from(b"{}".to_vec()))))
        });
        let plain = in_process(service, "loops").expect("a client");
        let caused = acting(&plain, Some("loops/one"), Some(Cause(41)));
        let unnamed = acting(&plain, None, Some(Cause(42)));
        for client in [plain, caused, unnamed] {
            let api: Api<ConfigMap> = Api::namespaced(client, "ns");
            // What is answered is of no concern here.
            let _ = api.create(&PostParams::default(), &ConfigMap::default()).await;
        }
        let seen: Vec<String> = seen.lock().iter().map(|headers| format!("{headers:?}")).collect();
        assert_eq!(
            seen,
            [
                r#"[Some("loops"), None]"#,
                r#"[Some("loops/one"), Some("41")]"#,
                r#"[Some("loops"), Some("42")]"#
            ]
        );
    }
}
