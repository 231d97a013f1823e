//! FlowSchemas and PriorityLevelConfigurations, as they are needed to classify a request.

use serde::Deserialize;
use serde_json::Value;

use crate::auth::{Attributes, Identity};
use crate::flow::level::Shape;

/// Which requests make a flow, and at which level it is served.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchema {
    /// Its name; not part of the spec.
    #[serde(skip)]
    pub name: String,
    /// Its uid, for the response header.
    #[serde(skip)]
    pub uid: String,
    /// Lower ones are asked first.
    pub matching_precedence: i64,
    priority_level_configuration: Named,
    distinguisher_method: Option<Typed>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Typed {
    r#type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NonResourceRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

impl FlowSchema {
    /// Reads an object; `None` if it is none.
    pub fn of(object: &Value) -> Option<Self> {
        let mut schema: Self = serde_json::from_value(object.get("spec")?.clone()).ok()?;
        schema.name = api::object::name(object).to_owned();
        schema.uid = api::object::uid(object).to_owned();
        Some(schema)
    }

    /// The name of its priority level.
    pub fn level(&self) -> &str {
        &self.priority_level_configuration.name
    }

    /// Whether it takes the request.
    pub fn matches(&self, who: &Identity, act: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(who))
                && match act.is_resource {
                    true => rule.resource_rules.iter().any(|rule| rule.matches(act)),
                    false => rule.non_resource_rules.iter().any(|rule| rule.matches(act)),
                }
        })
    }

    /// What tells one flow of the schema from another.
    pub fn distinguisher<'a>(&self, who: &'a Identity, act: &Attributes<'a>) -> &'a str {
        match self.distinguisher_method.as_ref().map(|method| method.r#type.as_str()) {
            Some("ByUser") => &who.user,
            Some("ByNamespace") => act.namespace,
            _ => "",
        }
    }
}

impl Subject {
    fn is(&self, who: &Identity) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == "*" || self.user.name == who.user,
            "Group" => self.group.name == "*" || who.groups.contains(&self.group.name),
            "ServiceAccount" => self.service_account.is_service_account(&who.user),
            _ => false,
        }
    }
}

impl Named {
    fn is_service_account(&self, user: &str) -> bool {
        let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        account.is_some_and(|(namespace, name)| {
            namespace == self.namespace && (self.name == "*" || self.name == name)
        })
    }
}

fn holds(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

impl ResourceRule {
    fn matches(&self, act: &Attributes<'_>) -> bool {
        holds(&self.verbs, act.verb)
            && holds(&self.api_groups, act.group)
            && (self.resources.iter().any(|item| item == "*") || holds(&self.resources, &act.resource_path()))
            && match act.namespace {
                "" => self.cluster_scope,
                namespace => holds(&self.namespaces, namespace),
            }
    }
}

impl NonResourceRule {
    fn matches(&self, act: &Attributes<'_>) -> bool {
        let is = |url: &String| match url.strip_suffix('*') {
            Some(prefix) => act.path.starts_with(prefix),
            None => act.path.trim_end_matches('/') == url.trim_end_matches('/'),
        };
        holds(&self.verbs, act.verb) && self.urls.iter().any(is)
    }
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PriorityLevel {
    /// Its name.
    pub name: String,
    /// Its uid, for the response header.
    pub uid: String,
    exempt: bool,
    shares: f64,
    lendable_percent: f64,
    borrowing_limit_percent: Option<f64>,
    queues: usize,
    hand: usize,
    queue_length: usize,
}

impl PriorityLevel {
    /// Reads an object; what it doesn't say has upstream's defaults.
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let exempt = spec["type"] == "Exempt";
        let part = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let queuing = &part["limitResponse"]["queuing"];
        let count = |field: &str, default: u64| {
            usize::try_from(queuing[field].as_u64().unwrap_or(default)).unwrap_or(usize::MAX)
        };
        let queued = part["limitResponse"]["type"] == "Queue";
        Self {
            name: api::object::name(object).to_owned(),
            uid: api::object::uid(object).to_owned(),
            exempt,
            shares: part["nominalConcurrencyShares"].as_f64().unwrap_or(if exempt { 0.0 } else { 30.0 }),
            lendable_percent: part["lendablePercent"].as_f64().unwrap_or(0.0),
            borrowing_limit_percent: part["borrowingLimitPercent"].as_f64(),
            queues: if queued { count("queues", 64).max(1) } else { 0 },
            hand: count("handSize", 8).max(1),
            queue_length: count("queueLengthLimit", 50),
        }
    }

    /// Its part of `seats`, which all `levels` share by their shares.
    pub fn shape(&self, levels: &[Self], seats: u32) -> Shape {
        let all: f64 = levels.iter().map(|level| level.shares).sum();
        let nominal = (f64::from(seats) * self.shares / all.max(1.0)).ceil();
        let percent = |percent: f64| (nominal * percent / 100.0).round() as u32;
        Shape {
            exempt: self.exempt,
            nominal: nominal as u32,
            lendable: percent(self.lendable_percent),
            borrowable: self.borrowing_limit_percent.map_or(u32::MAX, percent),
            queues: self.queues,
            hand: self.hand,
            queue_length: self.queue_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::registry::Registry;
    use crate::request::RequestInfo;

    fn schemas() -> Vec<FlowSchema> {
        let mut schemas: Vec<FlowSchema> = crate::bootstrap::objects()
            .iter()
            .filter(|object| object["kind"] == "FlowSchema")
            .filter_map(FlowSchema::of)
            .collect();
        schemas.sort_by(|a, b| (a.matching_precedence, &a.name).cmp(&(b.matching_precedence, &b.name)));
        schemas
    }

    fn classified(who: &str, groups: &[&str], line: &str) -> String {
        let (method, path) = line.split_once(' ').expect("method and path");
        let method: Method = method.parse().expect("a method");
        let info = RequestInfo::parse(&method, path, "", &Registry::builtin());
        let act = Attributes::of(&info);
        let who =
            Identity { groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Identity::new(who, &[]) };
        let schemas = schemas();
        let schema = schemas.iter().find(|schema| schema.matches(&who, &act)).expect("one takes it");
        format!("{} {} {:?}", schema.name, schema.level(), schema.distinguisher(&who, &act))
    }

    #[test]
    fn upstreams_schemas_take_upstreams_requests() {
        let authenticated = "system:authenticated";
        let pods = "GET /api/v1/namespaces/a/pods";
        let lease = "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        let cases: [(&str, &[&str], &str, &str); 10] = [
            ("root", &["system:masters", authenticated], pods, "exempt exempt \"\""),
            ("jane", &[authenticated], pods, "global-default global-default \"jane\""),
            ("jane", &[authenticated], "GET /readyz", "probes exempt \"\""),
            (
                "system:anonymous",
                &["system:unauthenticated"],
                "GET /version",
                "global-default global-default \"system:anonymous\"",
            ),
            (
                "system:kube-scheduler",
                &[authenticated],
                lease,
                "system-leader-election leader-election \"system:kube-scheduler\"",
            ),
            ("system:kube-scheduler", &[authenticated], pods, "kube-scheduler workload-high \"a\""),
            (
                "system:node:n",
                &["system:nodes", authenticated],
                "PATCH /api/v1/nodes/n/status",
                "system-node-high node-high \"system:node:n\"",
            ),
            (
                "system:node:n",
                &["system:nodes", authenticated],
                pods,
                "system-nodes system \"system:node:n\"",
            ),
            (
                "system:serviceaccount:kube-system:x",
                &["system:serviceaccounts", authenticated],
                pods,
                "kube-system-service-accounts workload-high \"a\"",
            ),
            (
                "system:serviceaccount:a:x",
                &["system:serviceaccounts", authenticated],
                pods,
                "service-accounts workload-low \"system:serviceaccount:a:x\"",
            ),
        ];
        for (who, groups, line, expected) in cases {
            assert_eq!(classified(who, groups, line), expected, "{who}: {line}");
        }
    }

    #[test]
    fn seats_are_shared_by_shares() {
        let objects = crate::bootstrap::objects();
        let levels: Vec<PriorityLevel> = objects
            .iter()
            .filter(|object| object["kind"] == "PriorityLevelConfiguration")
            .map(PriorityLevel::of)
            .collect();
        let seats = |name: &str| {
            let level = levels.iter().find(|level| level.name == name).expect("a level");
            let shape = level.shape(&levels, 600);
            (shape.nominal, shape.lendable, shape.queues)
        };
        // As upstream computes them of 600: ceil(600 * shares / 245).
        assert_eq!(seats("workload-low"), (245, 221, 128));
        assert_eq!(seats("catch-all"), (13, 0, 0));
        assert_eq!(seats("leader-election"), (25, 0, 16));
        assert_eq!(seats("exempt"), (0, 0, 0));
    }
}
