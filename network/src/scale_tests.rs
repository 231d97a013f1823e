//! What a change costs among a thousand Services: how long until the kernel has it, and what of it is ours. Run by
//! hand, on a quiet machine: `cargo test --release -p network -- --ignored --nocapture a_thousand`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, unshare};

use crate::ClusterNetwork;
use crate::nft::Kept;
use crate::service::plan::routes;
use crate::service::table::{TABLE, frame};
use crate::table::{Table, between};

const SERVICES: u16 = 1_000;
const PODS: u8 = 5;

fn objects(changed: Option<(u16, u8)>) -> (Vec<Service>, Vec<EndpointSlice>) {
    let each = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let service = serde_json::json!({
            "metadata": {"namespace": "shop", "name": format!("web-{n}")},
            "spec": {"clusterIP": Ipv4Addr::new(10, 96, 1 + high, low).to_string(), "ports": [{"port": 80}]},
        });
        let pods = if changed.is_some_and(|(service, _)| service == n) {
            changed.map_or(PODS, |c| c.1)
        } else {
            PODS
        };
        let endpoints = (0..pods)
            .map(|pod| serde_json::json!({"addresses": [format!("10.244.{}.{low}", pod + high * PODS)]}));
        let slice = serde_json::json!({
            "metadata": {"namespace": "shop", "name": format!("web-{n}-1"), "labels": {"kubernetes.io/service-name": format!("web-{n}")}},
            "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        let read = "an object";
        (serde_json::from_value(service).expect(read), serde_json::from_value(slice).expect(read))
    };
    (0..SERVICES).map(each).unzip()
}

fn table(changed: Option<(u16, u8)>) -> Table {
    let (services, slices) = objects(changed);
    Table::of(&routes("n1", &services, &slices))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement; see above"]
fn a_change_among_a_thousand_services() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own (the test needs root)");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cluster = ClusterNetwork {
        pods: "10.244.0.0/16".parse().expect("a range"),
        services: "10.96.0.0/12".parse().expect("a range"),
        dns: Ipv4Addr::new(10, 96, 0, 10),
        domain: "cluster.local".to_owned(),
    };
    let mut rules = Kept::new(TABLE, frame(&cluster));
    let start = Instant::now();
    runtime.block_on(rules.bring(table(None))).expect("rules");
    println!("laid out whole: {:?}", start.elapsed());

    let (mut planned, mut differing, mut told, mut old) = (vec![], vec![], vec![], table(None));
    for n in 0..21 {
        let (services, slices) = objects(Some((n * 40, PODS - 1)));
        let start = Instant::now();
        let next = Table::of(&routes("n1", &services, &slices));
        planned.push(start.elapsed());
        let start = Instant::now();
        let script = between(TABLE, &old, &next);
        differing.push(start.elapsed());
        assert!(script.lines().count() < 12, "{script}");
        let start = Instant::now();
        runtime.block_on(rules.bring(next.clone())).expect("rules");
        told.push(start.elapsed());
        old = next;
    }
    println!(
        "one of {SERVICES} Services with {PODS} pods changes: plan {:?}, difference {:?}, difference and nft {:?}",
        median(planned),
        median(differing),
        median(told)
    );
}
