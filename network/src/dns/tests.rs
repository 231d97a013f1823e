//! Names of a written cluster, as the specification has them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::net::UdpSocket;

use super::server::{Resolver, Transport, serve, upstream};
use super::zone::{View, Zone};
use crate::service::plan::service_of;

/// Objects as they were written, searched from end to end.
struct Written {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl View for Written {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let is = |s: &&Arc<Service>| {
            s.metadata.namespace.as_deref() == Some(namespace) && s.metadata.name.as_deref() == Some(name)
        };
        self.services.iter().find(is).cloned()
    }

    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.iter().filter(|slice| service_of(slice) == Some((namespace, name))).cloned().collect()
    }

    fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
        let text = Some(ip.to_string());
        self.services.iter().find(|s| s.spec.as_ref().is_some_and(|spec| spec.cluster_ip == text)).cloned()
    }

    fn slices_at(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        let text = ip.to_string();
        let has =
            |slice: &EndpointSlice| slice.endpoints.iter().flatten().any(|e| e.addresses.contains(&text));
        self.slices.iter().filter(|slice| has(slice)).cloned().collect()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.services.iter().any(|service| service.metadata.namespace.as_deref() == Some(namespace))
    }
}

const CLUSTER: &str = "
- metadata: {namespace: shop, name: web}
  spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]}
- metadata: {namespace: shop, name: db}
  spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
- metadata: {namespace: shop, name: empty}
  spec: {clusterIP: None}
- metadata: {namespace: shop, name: far}
  spec: {type: ExternalName, externalName: db.example.org}
- metadata: {namespace: shop, name: near}
  spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
- metadata: {namespace: shop, name: circle}
  spec: {type: ExternalName, externalName: circle.shop.svc.cluster.local}
";

const PODS: &str = "
- metadata: {namespace: shop, name: db-1, labels: {kubernetes.io/service-name: db}}
  addressType: IPv4
  ports: [{name: sql, port: 5432, protocol: TCP}]
  endpoints:
  - {addresses: [10.244.1.5], hostname: db-0}
  - {addresses: [10.244.1.6]}
  - {addresses: [10.244.1.7], hostname: db-2, conditions: {ready: false}}
- metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.244.1.8], hostname: web-0}]
";

fn resolver(upstream: Vec<SocketAddr>) -> Resolver {
    let view = Written {
        services: serde_yaml::from_str(CLUSTER).expect("Services"),
        slices: serde_yaml::from_str(PODS).expect("slices"),
    };
    let zone = Zone { origin: Name::from_utf8("cluster.local.").expect("a name") };
    Resolver { zone, view: Arc::new(view), upstream }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    // Even, so that two answers stay in their order.
    message.metadata.id = 4;
    message.add_query(Query::query(Name::from_utf8(name).expect("a name"), kind));
    message
}

async fn ask(resolver: &Resolver, name: &str, kind: RecordType) -> Message {
    let question = query(name, kind).to_vec().expect("encoded");
    let answer = resolver.answer(&question, Transport::Tcp).await.expect("an answer");
    Message::from_vec(&answer).expect("decoded")
}

/// `NXDOMAIN`, `-` for a name without such records, or the records' data.
async fn said(resolver: &Resolver, name: &str, kind: RecordType) -> String {
    let answer = ask(resolver, name, kind).await;
    if answer.metadata.response_code != ResponseCode::NoError {
        return answer.metadata.response_code.to_str().to_owned();
    }
    let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    if data.is_empty() { "-".to_owned() } else { data.join(" | ") }
}

#[tokio::test]
async fn names_of_the_specification() {
    use RecordType::{A, AAAA, NS, PTR, SRV, TXT};
    let none = ResponseCode::NXDomain.to_str();
    let cases = [
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("cluster.local.", NS, "ns.dns.cluster.local."),
        ("web.shop.svc.cluster.local.", A, "10.96.0.7"),
        ("WEB.Shop.svc.Cluster.local.", A, "10.96.0.7"),
        ("web.shop.svc.cluster.local.", AAAA, "-"),
        ("shop.svc.cluster.local.", A, "-"),
        ("none.svc.cluster.local.", A, none),
        ("none.shop.svc.cluster.local.", A, none),
        ("db.shop.svc.cluster.local.", A, "10.244.1.5 | 10.244.1.6"),
        ("empty.shop.svc.cluster.local.", A, "-"),
        ("db-0.db.shop.svc.cluster.local.", A, "10.244.1.5"),
        ("10-244-1-6.db.shop.svc.cluster.local.", A, "10.244.1.6"),
        ("db-2.db.shop.svc.cluster.local.", A, none),
        ("web-0.web.shop.svc.cluster.local.", A, none),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local."),
        ("_dns._udp.web.shop.svc.cluster.local.", SRV, "0 100 53 web.shop.svc.cluster.local."),
        ("_dns._tcp.web.shop.svc.cluster.local.", SRV, none),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            SRV,
            "0 100 5432 db-0.db.shop.svc.cluster.local. | 0 100 5432 10-244-1-6.db.shop.svc.cluster.local.",
        ),
        ("10-244-1-9.shop.pod.cluster.local.", A, "10.244.1.9"),
        ("7.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
        ("5.1.244.10.in-addr.arpa.", PTR, "db-0.db.shop.svc.cluster.local."),
        ("near.shop.svc.cluster.local.", A, "web.shop.svc.cluster.local. | 10.96.0.7"),
    ];
    let resolver = resolver(Vec::new());
    for (name, kind, expected) in cases {
        assert_eq!(said(&resolver, name, kind).await, expected, "{name} {kind}");
    }
}

#[tokio::test]
async fn a_circle_of_aliases_ends() {
    let answer = ask(&resolver(Vec::new()), "circle.shop.svc.cluster.local.", RecordType::A).await;
    assert!(answer.answers.len() < 12);
}

#[tokio::test]
async fn a_no_says_how_long_it_holds() {
    let resolver = resolver(Vec::new());
    for name in ["none.shop.svc.cluster.local.", "empty.shop.svc.cluster.local."] {
        let answer = ask(&resolver, name, RecordType::A).await;
        assert!(answer.authorities[0].data.to_string().contains("hostmaster.cluster.local."), "{name}");
    }
}

#[tokio::test]
async fn ports_come_with_their_addresses() {
    let answer = ask(&resolver(Vec::new()), "_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV).await;
    let addresses: Vec<String> = answer.additionals.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(addresses, ["10.244.1.5", "10.244.1.6"]);
}

/// Another resolver, which knows two names.
async fn outside() -> SocketAddr {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = outside.local_addr().expect("an address");
    let socket = UdpSocket::bind(address).await.expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&known(&buffer[..length]), from).await;
        }
    });
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = outside.accept().await {
            let mut question = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut question).await.expect("a question");
            let answer = known(&question);
            stream.write_u16(answer.len() as u16).await.expect("sent");
            stream.write_all(&answer).await.expect("sent");
        }
    });
    address
}

fn known(question: &[u8]) -> Vec<u8> {
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record};
    let mut answer = Message::from_vec(question).expect("a question").into_response();
    let name = answer.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(203, 0, 113, 9)))));
    answer.to_vec().expect("encoded")
}

#[tokio::test]
async fn other_names_are_asked_for_outside() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let resolver = resolver(vec![nobody, outside().await]);
    assert_eq!(said(&resolver, "example.org.", RecordType::A).await, "203.0.113.9");
    let far = said(&resolver, "far.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(far, "db.example.org. | 203.0.113.9");
}

#[tokio::test]
async fn without_anyone_outside_other_names_fail() {
    let answer = ask(&resolver(Vec::new()), "example.org.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn long_answers_say_so_over_udp() {
    let mut resolver = resolver(Vec::new());
    let endpoints: String = (0..60).map(|n| format!("  - {{addresses: [10.244.2.{n}]}}\n")).collect();
    let slice = format!(
        "metadata: {{namespace: shop, name: db-2, labels: {{kubernetes.io/service-name: db}}}}\nendpoints:\n{endpoints}"
    );
    let mut view = Written {
        services: serde_yaml::from_str(CLUSTER).expect("Services"),
        slices: serde_yaml::from_str(PODS).expect("slices"),
    };
    view.slices.push(Arc::new(serde_yaml::from_str(&slice).expect("a slice")));
    resolver.view = Arc::new(view);
    let mut question = query("db.shop.svc.cluster.local.", RecordType::A);
    for (edns, truncated) in [(None, true), (Some(1232), false)] {
        question.edns = edns.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let bytes = question.to_vec().expect("encoded");
        let answer = resolver.answer(&bytes, Transport::Udp).await.expect("an answer");
        let answer = Message::from_vec(&answer).expect("decoded");
        assert_eq!(answer.metadata.truncation, truncated, "{edns:?}");
        assert_eq!(answer.answers.is_empty(), truncated);
    }
}

#[tokio::test]
async fn a_server_answers_over_both_transports() {
    let (stop, shutdown) = client::shutdown::channel();
    let free =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let server = tokio::spawn(serve(free, Arc::new(resolver(Vec::new())), shutdown));
    let question = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().expect("encoded");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let mut answer = vec![0; 512];
    let by_udp = loop {
        socket.send_to(&question, free).await.expect("sent");
        let received =
            tokio::time::timeout(std::time::Duration::from_millis(200), socket.recv(&mut answer)).await;
        if let Ok(Ok(length)) = received {
            break answer[..length].to_vec();
        }
    };
    let by_tcp = super::server::ask_by_tcp(free, &question).await.expect("an answer");
    assert_eq!(by_udp, by_tcp);
    stop.request();
    server.await.expect("no panic").expect("an end in order");
}

#[tokio::test]
async fn what_is_not_a_question_is_refused_or_ignored() {
    let resolver = resolver(Vec::new());
    let question = query("web.shop.svc.cluster.local.", RecordType::A).to_vec().expect("encoded");
    for length in 0..question.len() {
        let answer = resolver.answer(&question[..length], Transport::Udp).await;
        let Some(answer) = answer else { continue };
        let code = Message::from_vec(&answer).expect("decoded").metadata.response_code;
        assert_eq!(code, ResponseCode::FormErr, "{length}");
    }
    let answer =
        ask(&resolver, "web.shop.svc.cluster.local.", RecordType::A).await.to_vec().expect("encoded");
    assert_eq!(resolver.answer(&answer, Transport::Udp).await, None, "an answer is never answered");
}

#[test]
fn the_machine_s_resolvers() {
    let text = "# x\nsearch a.b\nnameserver 192.0.2.1\n nameserver ::1\nnameserver nonsense\n";
    let expected: Vec<SocketAddr> =
        ["192.0.2.1:53", "[::1]:53"].iter().map(|text| text.parse().expect("an address")).collect();
    assert_eq!(upstream(text), expected);
}
