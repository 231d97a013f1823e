//! Two machines on different links with a router between them, in a real kernel. Needs root.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use nix::sched::{CloneFlags, setns, unshare};

use super::follow::Follower;
use super::tunnel::End;
use crate::pod::addresses::Range;
use crate::pod::namespace::{Attachment, PodNetwork};

/// More than fits into any packet, so that what is too long for the tunnel is seen.
const LENGTH: usize = 300_000;

fn ip(line: &str) {
    let ran = Command::new("ip").args(line.split(' ')).output().expect("iproute2");
    assert!(ran.status.success(), "ip {line}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").expect("a namespace")
}

fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
            work()
        });
        working.join().expect("no panic")
    })
}

struct Machine {
    namespace: File,
    address: Ipv4Addr,
    range: Range,
    root: PathBuf,
}

impl Machine {
    /// The machine with this number, on a link of its own to the router, which is the calling thread's.
    fn new(number: u8) -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace (the test needs root)");
            own_namespace()
        });
        let namespace = made.join().expect("no panic");
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let (router, address) = (format!("198.51.{number}.254"), Ipv4Addr::new(198, 51, number, 1));
        ip(&format!("link add r{number} type veth peer name eth0"));
        ip(&format!("link set eth0 netns {path}"));
        ip(&format!("addr add {router}/24 dev r{number}"));
        ip(&format!("link set r{number} up"));
        within(&namespace, || {
            ip("link set lo up");
            ip(&format!("addr add {address}/24 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {router}"));
        });
        let root = std::env::temp_dir().join(format!("amoeba-tunnel-{}-{number}", std::process::id()));
        let range = Range::new(Ipv4Addr::new(10, 244, number, 0), 24).expect("a range");
        Self { namespace, address, range, root }
    }

    fn node(&self) -> Node {
        let text = format!(
            "{{metadata: {{name: {0}}}, spec: {{podCIDR: {1}}}, \
             status: {{addresses: [{{type: InternalIP, address: {0}}}]}}}}",
            self.address, self.range
        );
        serde_yaml::from_str(&text).expect("a node")
    }

    /// A pod, and the ways to the pods of these nodes.
    fn join(&self, nodes: &[Node]) -> Attachment {
        within(&self.namespace, || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let network = PodNetwork::open(&self.root, self.range).await.expect("a network");
                self.bring(&network, nodes).await;
                network.attach("pod", None, &[]).await.expect("attached")
            })
        })
    }

    async fn bring(&self, network: &PodNetwork, nodes: &[Node]) {
        let end = End { handle: network.handle().clone(), gateway: self.range.gateway() };
        let mut follower = Follower::new(end, self.address.to_string());
        follower.bring(Some(self.address), nodes.iter()).await.expect("ways");
    }

    fn routes(&self) -> String {
        within(&self.namespace, || {
            let ran = Command::new("ip").arg("route").output().expect("iproute2");
            String::from_utf8_lossy(&ran.stdout).into_owned()
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.root.join("pod"), nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Answers connections in a namespace until the process ends.
fn serve(namespace: &Path, address: SocketAddr) {
    let namespace = File::open(namespace).expect("a namespace");
    let listener = within(&namespace, || TcpListener::bind(address).expect("bound"));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(&vec![b'x'; LENGTH]);
        }
    });
}

fn length_heard(namespace: &File, address: SocketAddr) -> std::io::Result<usize> {
    within(namespace, || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)
    })
}

#[test]
fn pods_of_machines_on_different_links_speak_through_the_tunnel() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of its own (the test needs root)");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router");
    let machines = [Machine::new(1), Machine::new(2)];
    let nodes = [machines[0].node(), machines[1].node()];
    let pods = [machines[0].join(&nodes), machines[1].join(&nodes)];
    let address = SocketAddr::from((pods[1].ip, 8080));
    serve(&pods[1].namespace, address);
    let from_pod = File::open(&pods[0].namespace).expect("a namespace");
    assert_eq!(length_heard(&from_pod, address).expect("an answer to the pod"), LENGTH);
    assert_eq!(length_heard(&machines[0].namespace, address).expect("an answer to the machine"), LENGTH);
    assert!(
        machines[0].routes().contains("10.244.2.0/24 via 10.244.2.0 dev amoeba1"),
        "{}",
        machines[0].routes()
    );

    // The other node is gone while no agent looked: the next one finds the way that an earlier one made.
    machines[0].join(&nodes[..1]);
    assert!(!machines[0].routes().contains("10.244.2.0/24"), "{}", machines[0].routes());
}
