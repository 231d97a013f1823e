//! What balancers in front of the nodes ask each of them: whether a Service that keeps the clients' addresses
//! (`externalTrafficPolicy: Local`) has pods here. Values only.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::plan::{by_service, is_on, is_ready, key};

/// By it a balancer may give nodes with more pods more clients.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// One Service and how many ready pods of it are on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The Service's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ready pods on this node.
    pub local: usize,
}

/// What is asked for on which port (`healthCheckNodePort`).
pub fn checks<'a>(
    node: &str,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> BTreeMap<u16, Check> {
    let by_service = by_service(slices);
    let check = |service: &'a Service| {
        let (namespace, name) = key(service)?;
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        let local = local(node, slices);
        Some((port(service)?, Check { namespace: namespace.to_owned(), name: name.to_owned(), local }))
    };
    services.into_iter().filter_map(check).collect()
}

fn port(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let is_asked_for = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let port = spec.health_check_node_port.filter(|_| is_asked_for)?;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// Each pod once, however many ports it has. Pods that end aren't counted: a balancer is to turn away from them.
fn local(node: &str, slices: &[&EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let here = endpoints.filter(|endpoint| is_on(endpoint, node) && is_ready(endpoint));
    here.filter_map(|endpoint| endpoint.addresses.first()).collect::<BTreeSet<_>>().len()
}

impl Check {
    /// Upstream's answer, whatever the request was: 200 where there are pods, 503 where there are none. Who answers
    /// at all has the Service's rules in the kernel.
    pub fn answer(&self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::from(self.body()));
        *answer.status_mut() = match self.local {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(WEIGHT, HeaderValue::from(self.local));
        answer
    }

    /// Names of the API need no escapes.
    fn body(&self) -> String {
        let Self { namespace, name, local } = self;
        format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
             \t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": true\n}}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30200";

    fn told(spec: &str, endpoints: &str) -> Vec<(u16, usize)> {
        let service = format!("{{metadata: {{namespace: shop, name: web}}, spec: {{{spec}}}}}");
        let slice = format!(
            "{{metadata: {{namespace: shop, name: s, labels: {{kubernetes.io/service-name: web}}}}, \
             addressType: IPv4, endpoints: [{endpoints}]}}"
        );
        let service = serde_yaml::from_str(&service).expect("a Service");
        let slice = serde_yaml::from_str(&slice).expect("a slice");
        checks("n1", [&service], [&slice]).iter().map(|(port, check)| (*port, check.local)).collect()
    }

    #[test]
    fn ready_pods_of_this_node_are_counted_once() {
        let endpoints = "{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.1], nodeName: n1}, \
                         {addresses: [10.0.0.2], nodeName: n2}, \
                         {addresses: [10.0.0.3], nodeName: n1, conditions: {ready: false, serving: true}}, \
                         {addresses: [10.0.0.4], nodeName: n1, conditions: {ready: true}}";
        assert_eq!(told(LOCAL, endpoints), [(30200, 2)]);
        assert_eq!(told(LOCAL, ""), [(30200, 0)]);
    }

    #[test]
    fn only_services_with_a_port_for_it_are_asked_about() {
        for spec in [
            "type: LoadBalancer, externalTrafficPolicy: Cluster, healthCheckNodePort: 30200",
            "type: NodePort, externalTrafficPolicy: Local",
            "type: LoadBalancer, externalTrafficPolicy: Local",
        ] {
            assert_eq!(told(spec, ""), [], "{spec}");
        }
    }

    #[test]
    fn the_answer_is_upstreams() {
        let check = Check { namespace: "shop".to_owned(), name: "web".to_owned(), local: 2 };
        let want = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\
                    \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!(check.body(), want);
        let answer = check.answer();
        assert_eq!((answer.status().as_u16(), &answer.headers()[WEIGHT]), (200, &HeaderValue::from(2)));
        assert_eq!(Check { local: 0, ..check }.answer().status().as_u16(), 503);
    }
}
