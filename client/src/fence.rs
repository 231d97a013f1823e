//! Writes that end with their author's leadership: the header `Amoeba-Fence`.
//!
//! A leader asks its own clock before it writes, but a process that is stopped between the question and the
//! request writes late. The header names the term (see [`Leadership::fence`]); our API server makes the lease a
//! condition of the write's transaction and answers 409 once another holds it. Other servers ignore it.

use crate::election::Leadership;
use http::{HeaderName, HeaderValue, Request};
use kube::{Client, client::Body};
use tower::service_fn;

/// The header of a request in which a term is named.
pub const HEADER: HeaderName = HeaderName::from_static("amoeba-fence");

/// `client`, for writes of one term. Without a lease behind the leadership, or with a name that no header can carry,
/// it is the client as it was.
pub fn fenced(client: &Client, leadership: &Leadership) -> Client {
    let Some(Ok(term)) = leadership.fence().map(HeaderValue::from_str) else { return client.clone() };
    let (inner, namespace) = (client.clone(), client.default_namespace().to_owned());
    let service = service_fn(move |mut request: Request<Body>| {
        let inner = inner.clone();
        request.headers_mut().insert(HEADER, term.clone());
        async move { inner.send(request).await }
    });
    Client::new(service, namespace)
}

/// Names the term in one request, without the cost of a client for it.
pub fn mark<B>(request: &mut Request<B>, leadership: &Leadership) {
    if let Some(Ok(term)) = leadership.fence().map(HeaderValue::from_str) {
        request.headers_mut().insert(HEADER, term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::in_process, shutdown};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, api::PostParams};
    use parking_lot::Mutex;
    use std::{convert::Infallible, sync::Arc};

    #[tokio::test]
    async fn every_request_of_a_term_names_it() {
        let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let log = seen.clone();
        let service = service_fn(move |request: Request<Body>| {
            let term = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
            log.lock().push(term);
            std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::from(b"{}".to_vec()))))
        });
        let plain = in_process(service, "loops").expect("a client");
        let (_trigger, shutdown) = shutdown::channel();
        let alone = Leadership::permanent(shutdown.clone());
        let elected = alone.clone().fenced_by("kube-system/loops/3/a");
        for leadership in [alone, elected] {
            let api: Api<ConfigMap> = Api::namespaced(fenced(&plain, &leadership), "ns");
            // What is answered is of no concern here.
            let _ = api.create(&PostParams::default(), &ConfigMap::default()).await;
        }
        assert_eq!(*seen.lock(), [None, Some("kube-system/loops/3/a".to_owned())]);
        let mut request = Request::new(());
        mark(&mut request, &Leadership::permanent(shutdown).fenced_by("kube-system/loops/3/a"));
        assert_eq!(
            request.headers().get(HEADER).map(HeaderValue::as_bytes),
            Some(&b"kube-system/loops/3/a"[..])
        );
    }
}
