//! A living cluster grows from one member to three and loses its first leader, while clients write.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use e2e::standalone::{Program, StoreProcess, a, amoeba, found, leader};
use e2e::{Background, Cluster, amoeba_binary, eventually, free_port, lines_of, wait_for_line};
use etcd_client::{Client, ConnectOptions, GetOptions};
use serde_json::Value;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("amoeba-member-").tempdir().expect("a temporary directory")
}

/// Writes one key after the other until it is told to stop; returns what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, String>>,
}

impl Writer {
    fn start(endpoints: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || runtime().block_on(write(endpoints, &asked)));
        Self { stop, thread }
    }

    fn finish(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer doesn't panic")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn write(endpoints: Vec<String>, stop: &AtomicBool) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    let mut at = 0;
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let (key, value) = (format!("n/{:06}", acknowledged.len()), acknowledged.len().to_string());
        let open = match client.take() {
            Some(open) => Ok(open),
            None => connect(&endpoints[at % endpoints.len()]).await,
        };
        let written = match open {
            Ok(mut open) => open.put(key.as_str(), value.as_str(), None).await.map(|_| open),
            Err(error) => Err(error),
        };
        match written {
            Ok(open) => {
                client = Some(open);
                acknowledged.insert(key, value);
            }
            // Tried again elsewhere with the same value: whether it was written already makes no difference.
            Err(_) => {
                at += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    acknowledged
}

async fn connect(endpoint: &str) -> Result<Client, etcd_client::Error> {
    let second = std::time::Duration::from_secs(1);
    let options = ConnectOptions::new().with_connect_timeout(second).with_timeout(2 * second);
    Client::connect([endpoint], Some(options)).await
}

/// Every key with the prefix, as this member has it.
fn read(member: &StoreProcess, prefix: &str) -> BTreeMap<String, String> {
    let get = async {
        let mut client = connect(&member.endpoint()).await?;
        client.get(prefix, Some(GetOptions::new().with_prefix())).await
    };
    let found = runtime().block_on(get).expect("the member answers");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    found.kvs().iter().map(|kv| (text(kv.key()), text(kv.value()))).collect()
}

/// Adds `new` to the cluster of `old` and starts it by the very command that was printed.
fn grow(old: &StoreProcess, new: &mut StoreProcess) {
    let printed =
        a(&format!("member add {} --peer-urls {} --endpoints {}", new.name, new.peer_url(), old.endpoint()));
    let flags: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(flags[..2], ["amoeba", "store"], "{printed}");
    let cluster = flags.iter().skip_while(|flag| **flag != "--initial-cluster-state");
    new.flags = cluster.map(|flag| (*flag).to_owned()).collect();
    wait_for_line(&new.spawn(), "ready");
    a(&format!("member promote {} --endpoints {}", new.name, old.endpoint()));
}

fn roles(member: &StoreProcess) -> Vec<(String, String)> {
    let list: Value =
        serde_json::from_str(&a(&format!("member list -o json --endpoints {}", member.endpoint())))
            .expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut roles: Vec<_> = list["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| (text(&member["name"]), text(&member["role"])))
        .collect();
    roles.sort();
    roles
}

#[test]
fn a_cluster_grows_under_writes_and_outlives_its_first_leader() {
    let dir = folder();
    let mut members: Vec<_> =
        ["a", "b", "c"].map(|name| StoreProcess::new(Program::Amoeba, dir.path(), name)).into();
    members[0].start();
    let writer = Writer::start(members.iter().map(StoreProcess::endpoint).collect());
    for new in 1..3 {
        let (old, rest) = members.split_at_mut(1);
        grow(&old[0], &mut rest[new - 1]);
    }
    let of = |roles: &[(String, String)], role: &str| roles.iter().filter(|(_, r)| r == role).count();
    let roles_now = roles(&members[2]);
    assert_eq!((of(&roles_now, "leader"), of(&roles_now, "voter")), (1, 2), "{roles_now:?}");
    let table = a(&format!("member list --endpoints {}", members[1].endpoint()));
    assert!(table.starts_with("ID") && table.lines().count() == 4 && table.contains(&members[2].peer_url()));

    let old = leader(&members);
    members[old].kill();
    let rest: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    let before = read(&members[rest[0]], "n/").len();
    eventually("writes go on without the old leader", || {
        (read(&members[rest[0]], "n/").len() > before).then_some(())
    });
    let written = writer.finish();
    for number in &rest {
        let found = read(&members[*number], "n/");
        let lost: Vec<_> = written.iter().filter(|(key, value)| found.get(*key) != Some(value)).collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost: {lost:?}",
            lost.len(),
            written.len()
        );
    }

    let dead = members[old].name.clone();
    a(&format!("member remove {dead} --endpoints {}", members[rest[0]].endpoint()));
    let names: Vec<_> = roles(&members[rest[1]]).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() == 2 && !names.contains(&dead), "{names:?}");
}

#[test]
fn a_member_whose_directory_is_deleted_is_refused_with_the_remedy_and_replaced_by_it() {
    let dir = folder();
    let mut members = ["a", "b", "c"].map(|name| StoreProcess::new(Program::Amoeba, dir.path(), name));
    found(&mut members);
    members[0].e("put kept v");
    let lost = (leader(&members) + 1) % 3;
    let other = (lost + 1) % 3;
    members[lost].kill();
    std::fs::remove_dir_all(&members[lost].dir).expect("it was there");
    let (said, _lines) = members[lost].spawn_with("--log-level=info");
    let why = wait_for_line(&said, "amoeba member remove");
    assert!(why.contains("its directory is new") && why.contains("as a new member"), "{why}");
    let asked = members[lost].etcdctl("get kept --consistency=s");
    assert!(!asked.ok && asked.err.contains("corrupt"), "it serves nothing: {asked:?}");
    members[other].e("put kept w");

    let name = members[lost].name.clone();
    a(&format!("member remove {name} --endpoints {}", members[other].endpoint()));
    members[lost].kill();
    let mut new = StoreProcess::new(Program::Amoeba, dir.path(), "d");
    grow(&members[other], &mut new);
    assert_eq!(read(&new, "kept"), BTreeMap::from([("kept".to_owned(), "w".to_owned())]));
    let names: Vec<_> = roles(&new).into_iter().map(|(name, _)| name).collect();
    assert!(names.len() == 3 && !names.contains(&name), "{names:?}");
}

#[test]
fn what_would_endanger_the_quorum_is_refused_with_a_reason() {
    let dir = folder();
    let mut member = StoreProcess::new(Program::Amoeba, dir.path(), "a");
    member.start();
    let at = format!("--endpoints {}", member.endpoint());
    let refused = |line: &str, why: &str| {
        let ran = amoeba(&format!("member {line} {at}"));
        assert!(!ran.ok && ran.err.contains(why), "member {line}: {ran:?}");
    };
    refused("remove a", "at least one voter");
    refused("remove nobody", "the cluster has no member nobody: it has a");
    refused(&format!("add twin --peer-urls {}", member.peer_url()), "already exists");
    a(&format!("member add b --peer-urls http://127.0.0.1:1 {at}"));
    refused("add c --peer-urls http://127.0.0.1:2", "promote or remove");
    let list: Value = serde_json::from_str(&a(&format!("member list -o json {at}"))).expect("JSON");
    let learner = &list["members"]
        .as_array()
        .expect("members")
        .iter()
        .find(|m| m["role"] == "learner")
        .expect("b")["id"];
    let learner = learner.as_str().expect("an id");
    refused(&format!("promote {learner} --timeout 300ms"), "");
    // A learner that never came costs nobody anything.
    member.e("put k v");
    a(&format!("member remove {learner} {at}"));
    assert_eq!(roles(&member), [("a".to_owned(), "leader".to_owned())]);
    let nobody = amoeba("member list --endpoints http://127.0.0.1:1");
    assert!(!nobody.ok && nobody.err.contains("--endpoints right"), "{nobody:?}");
}

#[test]
fn a_member_that_was_not_added_is_told_so() {
    let dir = folder();
    let mut member = StoreProcess::new(Program::Amoeba, dir.path(), "a");
    member.start();
    let stranger = StoreProcess::new(Program::Amoeba, dir.path(), "stranger");
    let cluster = format!("{},{}", member.as_founder(), stranger.as_founder());
    let stranger = stranger.with(&format!("--initial-cluster-state existing --initial-cluster {cluster}"));
    let ran = stranger.run_to_end();
    assert!(!ran.ok && ran.err.contains("add one with that address first"), "{ran:?}");
}

#[test]
fn a_control_plane_grows_while_it_serves() {
    let cluster = Cluster::up(1, 0);
    assert!(cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: '1'}}").ok);
    let peer = free_port();
    let printed = cluster.a(&format!("member add m2 --peer-urls https://127.0.0.1:{peer}"));
    let dir = cluster.path().join("members/m2");
    let printed = printed.trim();
    let line = printed.strip_prefix("amoeba ").unwrap_or_else(|| panic!("no command: {printed}"));
    let line = line.replace("--data-dir m2", &format!("--data-dir {}", dir.display()));
    let line = line.replace("COPY-OF-THE-CLUSTERS-PKI", &cluster.path().join("pki").display().to_string());
    let api = free_port();
    let mut child = Command::new(amoeba_binary())
        .args(line.split_whitespace())
        .args(["--listen", &format!("127.0.0.1:{api}"), "--tick", "50ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = lines_of(child.stdout.take().expect("stdout is piped"));
    let _ends_with_the_test = Background::new(child);
    wait_for_line(&lines, "ready");
    eventually("the new member has said its name", || cluster.a("member list").contains("m2").then_some(()));
    cluster.a("member promote m2");
    let through_the_new = format!("get configmap kept -s https://127.0.0.1:{api} -o jsonpath={{.data.a}}");
    assert_eq!(cluster.k(&through_the_new), "1");
    let list: Value = serde_json::from_str(&cluster.a("member list -o json")).expect("JSON");
    let voters = list["members"].as_array().expect("members").iter().filter(|m| m["role"] != "learner");
    assert_eq!(voters.count(), 2);
}
