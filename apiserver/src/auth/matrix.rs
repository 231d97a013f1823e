//! Who may do what: every act of a list for every identity of a list, against the bootstrap roles and some
//! of a user. The whole answer is a golden file, so that a widened right shows in review.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::*;

const USERS: [(&str, &str, &[&str]); 11] = [
    ("anonymous", ANONYMOUS, &[UNAUTHENTICATED_GROUP]),
    ("nobody", "nobody", &[AUTHENTICATED_GROUP]),
    ("viewer", "vera", &["viewers", AUTHENTICATED_GROUP]),
    ("editor", "ed", &[AUTHENTICATED_GROUP]),
    ("ns-admin", "ada", &[AUTHENTICATED_GROUP]),
    ("account", "system:serviceaccount:shop:robot", &["system:serviceaccounts", AUTHENTICATED_GROUP]),
    ("node", "system:node:n1", &["system:nodes", AUTHENTICATED_GROUP]),
    ("fake-node", "system:node:n1", &[AUTHENTICATED_GROUP]),
    ("scheduler", "system:kube-scheduler", &[AUTHENTICATED_GROUP]),
    ("controllers", "system:kube-controller-manager", &[AUTHENTICATED_GROUP]),
    ("master", "root", &["system:masters", AUTHENTICATED_GROUP]),
];

/// `VERB [GROUP:]RESOURCE[/SUB] [NAMESPACE/][NAME]` or `VERB /path`.
const ACTS: &str = include_str!("../../testdata/authorization/acts.txt");
const OBJECTS: &str = include_str!("../../testdata/authorization/objects.yaml");

fn authorizer() -> Authorizer {
    let documents = serde_yaml::Deserializer::from_str(OBJECTS)
        .map(|document| Value::deserialize(document).expect("YAML"));
    let objects: Vec<Value> = crate::bootstrap::objects().into_iter().chain(documents).collect();
    let authorizer = Authorizer::default();
    authorizer.replace(objects.iter().map(|object| (object["kind"].as_str().expect("kind"), object)));
    authorizer
}

fn parse(line: &str) -> Attributes<'_> {
    let mut words = line.split_whitespace();
    let (verb, what) = (words.next().expect("verb"), words.next().expect("what"));
    if what.starts_with('/') {
        return Attributes { verb, path: what, ..Attributes::default() };
    }
    let (group, resource) = what.split_once(':').unwrap_or(("", what));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let place = words.next().unwrap_or_default();
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    Attributes {
        verb,
        group,
        version: "v1",
        resource,
        subresource,
        namespace,
        name,
        path: "",
        is_resource: true,
    }
}

#[test]
fn the_matrix_is_as_it_was() {
    let authorizer = authorizer();
    let mut text = String::new();
    for line in ACTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let act = parse(line);
        let allowed = USERS
            .iter()
            .filter(|(_, user, groups)| authorizer.authorize(&Identity::new(*user, groups), &act).allowed);
        let allowed: Vec<&str> = allowed.map(|(label, ..)| *label).collect();
        writeln!(text, "{line}: {}", allowed.join(" ")).expect("a String takes everything");
    }
    crate::golden::check("authorization/matrix.txt", &text);
}

#[test]
fn refusals_read_as_upstream() {
    let cases = [
        (
            "get pods shop/web",
            "User \"eve\" cannot get resource \"pods\" in API group \"\" in the namespace \"shop\"",
        ),
        ("list nodes", "User \"eve\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"),
        (
            "patch apps:deployments/scale shop/web",
            "User \"eve\" cannot patch resource \"deployments/scale\" in API group \"apps\" in the namespace \"shop\"",
        ),
        ("get /metrics", "User \"eve\" cannot get path \"/metrics\""),
    ];
    for (line, expected) in cases {
        assert_eq!(parse(line).refusal("eve", ""), expected);
    }
    assert!(parse("get /x").refusal("eve", "because").ends_with("path \"/x\": because"));
}

#[test]
fn reasons_name_the_binding_or_what_it_lacks() {
    let authorizer = authorizer();
    let decide = |user: &str, groups: &[&str], line: &str| {
        let decision = authorizer.authorize(&Identity::new(user, groups), &parse(line));
        format!("{} {}", decision.allowed, decision.reason)
    };
    assert_eq!(
        decide("vera", &["viewers"], "get pods shop/web"),
        "true RBAC: allowed by ClusterRoleBinding \"viewers\" of ClusterRole \"view\" to Group \"viewers\""
    );
    assert_eq!(
        decide("ed", &[], "get pods shop/web"),
        "true RBAC: allowed by RoleBinding \"editors/shop\" of ClusterRole \"edit\" to User \"ed\""
    );
    assert_eq!(
        decide("dangling", &[], "get pods shop/web"),
        "false RBAC: role.rbac.authorization.k8s.io \"gone\" not found"
    );
}

#[test]
fn deleted_bindings_and_roles_take_their_rights_along() {
    let authorizer = authorizer();
    let may = || authorizer.authorize(&Identity::new("ed", &[]), &parse("get pods shop/web")).allowed;
    assert!(may());
    let key = serde_json::json!({ "metadata": { "namespace": "shop", "name": "editors" } });
    authorizer.delete("RoleBinding", &key);
    assert!(!may());
    authorizer.delete("RoleBinding", &key);
}

#[test]
fn nobody_gives_away_more_than_they_have() {
    let authorizer = authorizer();
    let ada = Identity::new("ada", &[AUTHENTICATED_GROUP]);
    let role = |rules: Value| serde_json::json!({ "kind": "Role", "metadata": { "namespace": "shop", "name": "new" }, "rules": rules });
    let rule = |verbs: &[&str], resources: &[&str]| serde_json::json!([{ "apiGroups": [""], "resources": resources, "verbs": verbs }]);

    let held = role(rule(&["get", "list"], &["pods", "pods/log"]));
    assert_eq!(authorizer.check_escalation(&ada, "Role", None, &held), Ok(()));
    let not_held = role(rule(&["get", "patch"], &["nodes"]));
    let refusal = authorizer.check_escalation(&ada, "Role", None, &not_held).expect_err("more than held");
    assert_eq!(
        refusal,
        "user \"ada\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"patch\"]}"
    );
    assert_eq!(
        authorizer.check_escalation(&ada, "Role", Some(&not_held), &not_held),
        Ok(()),
        "unchanged rules"
    );

    let binding = |role: &str| {
        serde_json::json!({
            "metadata": { "namespace": "shop", "name": "new" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "User", "name": "ada" }],
        })
    };
    assert_eq!(authorizer.check_escalation(&ada, "RoleBinding", None, &binding("view")), Ok(()));
    assert!(authorizer.check_escalation(&ada, "RoleBinding", None, &binding("cluster-admin")).is_err());
    let master = Identity::new("root", &["system:masters"]);
    assert_eq!(authorizer.check_escalation(&master, "RoleBinding", None, &binding("cluster-admin")), Ok(()));

    let aggregating = serde_json::json!({
        "metadata": { "name": "new" },
        "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "x": "y" } }] },
        "rules": [],
    });
    assert!(authorizer.check_escalation(&ada, "ClusterRole", None, &aggregating).is_err());
}

#[test]
fn access_reviews_answer_for_the_caller_and_for_others() {
    let authorizer = authorizer();
    let review = |spec: Value| serde_json::json!({ "kind": "SelfSubjectAccessReview", "spec": spec });
    let ask = serde_json::json!({ "verb": "list", "resource": "pods", "namespace": "shop" });
    let ed = Identity::new("ed", &[]);
    let own = reviews::self_subject_access(
        &authorizer,
        &ed,
        review(serde_json::json!({ "resourceAttributes": ask })),
    );
    assert_eq!(own.expect("valid")["status"]["allowed"], true);
    let other = serde_json::json!({ "user": "eve", "resourceAttributes": ask });
    let other = reviews::subject_access(&authorizer, review(other)).expect("valid");
    assert_eq!(other["status"], serde_json::json!({ "allowed": false }));

    let empty = reviews::self_subject_access(&authorizer, &ed, review(serde_json::json!({})));
    let both = serde_json::json!({ "resourceAttributes": ask, "nonResourceAttributes": { "path": "/", "verb": "get" } });
    let both = reviews::self_subject_access(&authorizer, &ed, review(both));
    for refused in [empty, both] {
        assert_eq!(refused.expect_err("not one act").code(), 422);
    }
    let nobody =
        reviews::subject_access(&authorizer, review(serde_json::json!({ "resourceAttributes": ask })));
    assert_eq!(nobody.expect_err("names nobody").code(), 422);

    let rules = review(serde_json::json!({ "namespace": "shop" }));
    let rules = reviews::self_subject_rules(&authorizer, &ed, rules).expect("valid");
    assert!(rules["status"]["resourceRules"].as_array().is_some_and(|rules| !rules.is_empty()));
}
