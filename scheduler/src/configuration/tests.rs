//! Files as users write them, and what they are told about wrong ones.

use super::*;
use crate::plugins::Plugin;
use crate::profile::{Scoring, Strategy};

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

fn parse(rest: &str) -> Result<Configuration, String> {
    Configuration::parse(&format!("{HEAD}{rest}")).map_err(|invalid| invalid.to_string())
}

fn profile(rest: &str) -> Profile {
    let read = parse(rest).unwrap_or_else(|invalid| panic!("{invalid}"));
    let name = read.profiles.names().next().expect("a profile").clone();
    (**read.profiles.get(&name).expect("it has that name")).clone()
}

#[test]
fn nothing_said_is_upstreams_profile() {
    let read = parse("").expect("it is valid");
    assert_eq!(read.profiles.names().map(|name| &**name).collect::<Vec<_>>(), ["default-scheduler"]);
    assert_eq!((read.backoff, read.election.elects, read.notes.len()), (Backoff::default(), true, 0));
    assert_eq!(profile("profiles: [{schedulerName: default-scheduler}]"), Profile::default());
    assert_eq!(profile("profiles: [{pluginConfig: []}]"), Profile::default());
}

#[test]
fn plugins_are_enabled_weighed_and_disabled_as_upstream_has_it() {
    let of = |plugins: &str| profile(&format!("profiles: [{{plugins: {plugins}}}]"));
    let weights = |profile: &Profile| profile.weights.clone();
    let none = of("{preScore: {disabled: [{name: '*'}]}, score: {disabled: [{name: '*'}]}}");
    assert!(weights(&none).is_empty() && none.filters == Profile::default().filters);
    let one = of("{score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 7}]}}");
    assert_eq!(weights(&one), [(Plugin::ImageLocality, 7)].into());
    let heavier = of("{multiPoint: {enabled: [{name: TaintToleration, weight: 9}]}}");
    assert_eq!(heavier.weight(Plugin::TaintToleration), 9);
    assert!(heavier.filters(Plugin::TaintToleration));
    let half = of("{filter: {disabled: [{name: TaintToleration}]}}");
    assert!(!half.filters(Plugin::TaintToleration) && half.weight(Plugin::TaintToleration) == 3);
    let few = of("{multiPoint: {disabled: [{name: '*'}], \
                  enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeResourcesFit}]}}");
    assert_eq!(few.filters, [Plugin::NodeResourcesFit].into());
    assert_eq!((weights(&few), few.preemption), ([(Plugin::NodeResourcesFit, 1)].into(), None));
}

#[test]
fn arguments_reach_the_rules() {
    let of = |name: &str, arguments: &str| {
        profile(&format!("profiles: [{{pluginConfig: [{{name: {name}, args: {arguments}}}]}}]"))
    };
    let packs = of(
        "NodeResourcesFit",
        "{kind: NodeResourcesFitArgs, ignoredResources: [example.com/a], ignoredResourceGroups: [example.org],
          scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}, {name: example.com/gpu}]}}",
    );
    let resources = vec![("cpu".into(), 3), ("example.com/gpu".into(), 1)];
    assert_eq!(packs.scoring, Scoring { strategy: Strategy::MostAllocated, resources });
    let considered =
        ["cpu", "example.com/a", "example.com/b", "example.org/c"].map(|name| packs.considers(name));
    assert_eq!(considered, [true, false, true, false]);
    let ratio = of(
        "NodeResourcesFit",
        "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [
          {utilization: 0, score: 0}, {utilization: 100, score: 10}]}}}",
    );
    assert_eq!(ratio.scoring.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    let constraint = "{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}";
    let spread =
        of("PodTopologySpread", &format!("{{defaultingType: List, defaultConstraints: [{constraint}]}}"));
    assert_eq!(spread.spread.map(|list| list[0].max_skew), Some(2));
    let added = of(
        "NodeAffinity",
        "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
          {matchExpressions: [{key: pool, operator: In, values: [batch]}]}]}}}",
    );
    assert_eq!(added.added.required.map(|terms| terms.len()), Some(1));
    let affine =
        of("InterPodAffinity", "{hardPodAffinityWeight: 9, ignorePreferredTermsOfExistingPods: true}");
    assert_eq!((affine.hard_affinity, affine.ignore_others_wishes), (9, true));
    let timeout = of("VolumeBinding", "{bindTimeoutSeconds: 7}").bind_timeout;
    let limits = of("DefaultPreemption", "{minCandidateNodesAbsolute: 5}").preemption;
    assert_eq!(
        (timeout, limits.map(|one| (one.percent, one.least))),
        (Duration::from_secs(7), Some((10, 5)))
    );
}

#[test]
fn the_rest_of_the_file_counts_too() {
    let read = parse(
        "parallelism: 16
percentageOfNodesToScore: 50
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
clientConnection: {qps: 50}
leaderElection: {leaderElect: true, leaseDuration: 30s, resourceName: other, resourceLock: leases}
profiles: [{schedulerName: a}, {schedulerName: b}]
",
    )
    .expect("it is valid");
    assert_eq!(read.profiles.names().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(read.backoff, Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(20) });
    assert_eq!((read.election.lease, read.election.renew), (Some(Duration::from_secs(30)), None));
    assert_eq!(read.election.name.as_deref(), Some("other"));
    assert_eq!(
        read.notes,
        [
            "parallelism has no effect: nodes are looked at by one thread",
            "percentageOfNodesToScore has no effect: all nodes are looked at",
            "clientConnection.qps has no effect: the API server limits its clients",
        ]
    );
}

/// What is wrong, and what is said of it.
const WRONG: [(&str, &str); 24] = [
    ("profile: []", "profile: unknown field: remove it; there are apiVersion, "),
    ("parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero"),
    (
        "percentageOfNodesToScore: 101",
        "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
    ),
    ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
    (
        "podInitialBackoffSeconds: 5\npodMaxBackoffSeconds: 4",
        "podMaxBackoffSeconds: Invalid value: 4: must be greater than or equal to PodInitialBackoffSeconds",
    ),
    (
        "extenders: [{urlPrefix: x}]",
        "extenders[0]: Invalid value: {\"urlPrefix\":\"x\"}: extenders aren't supported",
    ),
    (
        "clientConnection: {kubeconfig: /x}",
        "clientConnection.kubeconfig: Invalid value: \"/x\": name it by --kubeconfig",
    ),
    (
        "leaderElection: {resourceLock: endpoints}",
        "leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"",
    ),
    (
        "leaderElection: {leaseDuration: 1s}",
        "leaderElection: Invalid value: {\"leaseDuration\":\"1s\"}: leaseDuration must be greater",
    ),
    (
        "leaderElection: {retryPeriod: soon}",
        "leaderElection.retryPeriod: Invalid value: \"soon\": must be a duration",
    ),
    ("profiles: [{}, {schedulerName: b}]", "profiles[0].schedulerName: Required value"),
    (
        "profiles: [{schedulerName: a}, {schedulerName: a}]",
        "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
    ),
    (
        "profiles: [{plugins: {scores: {}}}]",
        "profiles[0].plugins.scores: unknown field: remove it; there are multiPoint, ",
    ),
    (
        "profiles: [{plugins: {score: {enabled: [{name: Nonsense}]}}}]",
        "profiles[0].plugins.score.enabled[0].name: Unsupported value: \"Nonsense\": supported values: \"DefaultBinder\", ",
    ),
    (
        "profiles: [{plugins: {multiPoint: {enabled: [{name: DynamicResources}]}}}]",
        "profiles[0].plugins.multiPoint.enabled[0].name: Invalid value: \"DynamicResources\": this scheduler doesn't have that plugin",
    ),
    (
        "profiles: [{plugins: {filter: {enabled: [{name: ImageLocality}]}}}]",
        "profiles[0].plugins.filter.enabled[0].name: Invalid value: \"ImageLocality\": plugin \"ImageLocality\" does not extend filter plugins",
    ),
    (
        "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: -1}]}}}]",
        "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: not in valid range [0, 2147483647]",
    ),
    (
        "profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]",
        "profiles[0].plugins.bind: DefaultBinder can't be disabled: there is no other bind plugin",
    ),
    (
        "profiles: [{pluginConfig: [{name: NodeName, args: {}}]}]",
        "profiles[0].pluginConfig[0].name: Invalid value: \"NodeName\": this plugin has no arguments",
    ),
    (
        "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]",
        "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
    ),
    (
        "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]",
        "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio: Required value",
    ),
    (
        "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {resources: [{name: cpu, weight: 101}]}}}]}]",
        "profiles[0].pluginConfig[0].args.scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
    ),
    (
        "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}}]}]",
        "profiles[0].pluginConfig[0].args: Invalid value: ",
    ),
    (
        "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}}]}]",
        "profiles[0].pluginConfig[0].args.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
    ),
];

#[test]
fn what_is_wrong_is_named_with_its_field_and_value() {
    for (rest, said) in WRONG {
        let told = parse(rest).err().unwrap_or_else(|| panic!("accepted: {rest}"));
        assert!(told.starts_with(said), "{rest}\nsays {told}\nnot {said}");
    }
    let other = Configuration::parse(
        "apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration",
    );
    let told = other.map(drop).expect_err("an older version").to_string();
    assert_eq!(
        told,
        "apiVersion: Unsupported value: \"kubescheduler.config.k8s.io/v1beta3\": \
         supported values: \"kubescheduler.config.k8s.io/v1\""
    );
}
