//! Every command of kubectl, with each kubectl that is there, in a session with one cluster, and those of helm. The
//! sessions are `e2e/testdata/commands/`; [`e2e::script`] says how to read them.

use e2e::{Cluster, kubectls, script};

/// In this order: the later ones take nodes away.
const SESSIONS: [&str; 9] =
    ["get", "create", "apply", "change", "wait", "describe", "logs", "identity", "nodes"];

#[test]
fn helm_does_what_its_users_expect() {
    assert!(e2e::helm().is_some(), "no helm: run `make test`, which brings one, or set HELM");
    let cluster = Cluster::up(1, 1);
    script::play(&cluster, &kubectls()[0], "helm");
}

#[test]
fn controllers_do_what_their_users_expect() {
    let cluster = Cluster::up(1, 2);
    script::play(&cluster, &kubectls()[0], "controllers");
}

#[test]
fn kubectl_does_what_its_users_expect() {
    let cluster = Cluster::up(1, 2);
    let only = std::env::var("SESSION").ok();
    for session in SESSIONS.iter().filter(|session| only.as_ref().is_none_or(|only| only == *session)) {
        // Only the first one writes.
        let count = if std::env::var_os("UPDATE").is_some() { 1 } else { usize::MAX };
        for kubectl in kubectls().into_iter().take(count) {
            script::play(&cluster, &kubectl, session);
        }
    }
}
