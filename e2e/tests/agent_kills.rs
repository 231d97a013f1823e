//! The node's agent is killed again and again: its pods don't notice, and whoever ends meanwhile is told of exactly.
//! `AGENT_KILLS=50 AGENT_PODS=100` for more.

use std::collections::BTreeMap;
use std::fs;

use e2e::machines::Machines;
use e2e::{eventually, is_ready};
use serde_json::Value;

/// Room for as many pods as may be asked for.
const ROOM: [&str; 2] = ["--max-pods", "500"];

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn pods_dont_notice_that_their_agent_is_killed() {
    let (kills, pods) = (number("AGENT_KILLS", 3), number("AGENT_PODS", 20));
    let mut machines = Machines::start(1);
    let joining = machines.joining(1, "");
    let joining = joining.iter().map(String::as_str);
    machines.start_node(1, "worker", &joining.chain(ROOM).collect::<Vec<_>>());
    let gate = |round: usize| machines.path(&format!("gate-{round}")).display().to_string();
    let gates: Vec<_> = (0..kills).map(gate).collect();
    let ending = gates.iter().enumerate().map(|(round, gate)| {
        // Of every code that a process can end with, but 0 and those of a shell's own.
        let code = round % 120 + 1;
        pod(
            &format!("ends-{round}"),
            "ending",
            &format!("until [ -e {gate} ]; do sleep 0.1; done; exit {code}"),
        )
    });
    let lasting = (0..pods).map(|number| pod(&format!("lasts-{number}"), "lasting", "exec sleep 100000"));
    machines.apply(1, &lasting.chain(ending).collect::<Vec<_>>().join("---\n"));
    let before = eventually("all pods are ready", || all_ready(&machines, pods));

    for (round, gate) in gates.iter().enumerate() {
        let ending = machines.object(1, &format!("pod ends-{round}")).expect("the pod");
        let uid = ending["metadata"]["uid"].as_str().expect("a uid");
        let exit = machines.path(&format!("worker/containers/{uid}/main/0/exit.json"));
        machines.kill("worker");
        fs::write(gate, "").expect("a gate");
        eventually("the process has ended", || exit.exists().then_some(()));
        machines.start_node(1, "worker", &ROOM);
        let code = u64::try_from(round % 120 + 1).expect("small");
        let told = eventually("its end is told", || exit_code(&machines, round));
        assert_eq!(told, code, "round {round}");
    }

    assert_eq!(
        all_ready(&machines, pods).expect("all are ready"),
        before,
        "restarts, new containers or flaps"
    );
    println!("{kills} kills of the agent, {pods} pods: 0 restarts, 0 flaps, {kills} exact exit codes");
}

fn pod(name: &str, app: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 0\n  automountServiceAccountToken: false\n  containers: [{{name: main, \
         image: plain, imagePullPolicy: Never, command: [sh, -c, '{script}']}}]\n"
    )
}

fn exit_code(machines: &Machines, round: usize) -> Option<u64> {
    let pod = machines.object(1, &format!("pod ends-{round}"))?;
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_u64()
}

/// Of each lasting pod: its container, its restarts, and since when both run and are ready; and since when the node
/// is. A pod that wasn't ready for a moment is ready since later. `None` unless all are.
fn all_ready(machines: &Machines, pods: usize) -> Option<BTreeMap<String, Value>> {
    let list = machines.object(1, "pods -l app=lasting")?;
    let items = list["items"].as_array()?;
    let node = machines.object(1, "node worker").filter(is_ready)?;
    let mut seen: BTreeMap<String, Value> = items.iter().filter(|pod| is_ready(pod)).map(state).collect();
    if seen.len() != pods {
        return None;
    }
    seen.insert("node".to_owned(), ready_since(&node));
    Some(seen)
}

fn state(pod: &Value) -> (String, Value) {
    let container = &pod["status"]["containerStatuses"][0];
    let facts =
        [&container["containerID"], &container["restartCount"], &container["state"], &ready_since(pod)];
    let facts = facts.into_iter().cloned().collect();
    (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), Value::Array(facts))
}

fn ready_since(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    ready.map_or(Value::Null, |condition| condition["lastTransitionTime"].clone())
}
