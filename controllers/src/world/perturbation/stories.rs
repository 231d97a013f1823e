//! What happens to a cluster in each story: the table of all stories.

use super::{more::*, steps::*};
use crate::world::World;

pub type Step = fn(&mut World);

pub struct Story {
    pub name: &'static str,
    /// Between them everything settles.
    pub steps: &'static [Step],
}

pub const STORIES: &[Story] = &[
    Story { name: "job", steps: &[cluster, job, live, work, live, work, live] },
    Story {
        name: "indexed job with failures",
        steps: &[cluster, indexed_job, live, work_badly, later, live, work, live],
    },
    Story {
        name: "suspended job",
        steps: &[cluster, job, live, suspend, live, resume, live, work, live, work, live],
    },
    Story { name: "deleted job", steps: &[cluster, job, live, work, delete_job, live] },
    Story {
        name: "statefulset",
        steps: &[
            cluster,
            stateful_set,
            live,
            live,
            live,
            new_image,
            live,
            live,
            live,
            live,
            shrink,
            live,
            live,
        ],
    },
    Story {
        name: "statefulset with claims",
        steps: &[cluster, claiming_set, live, live, shrink_claiming, live, live],
    },
    Story {
        name: "daemonset",
        steps: &[cluster, daemon_set, live, new_daemon_image, live, live, live, live, live],
    },
    Story {
        name: "cronjob",
        steps: &[cluster, cron_job, minutes, live, work, live, minutes, live, work, live],
    },
    Story {
        name: "replication controller",
        steps: &[cluster, replication_controller, live, lose_a_pod, live],
    },
    Story { name: "service", steps: &[cluster, service, pods_with_addresses, lose_p1, live] },
    Story {
        name: "deployment and budget",
        steps: &[cluster, deployment_and_budget, live, roll_deployment, live, live, live, live],
    },
    Story { name: "volumes", steps: &[cluster, volumes, claims, delete_claim, late_volume] },
    Story {
        name: "local path",
        steps: &[cluster, waiting_claim, select_node, live, delete_cache, live, removed, live],
    },
    Story { name: "ephemeral claims", steps: &[cluster, ephemeral_pod, live, lose_ephemeral_claim, live] },
    Story { name: "rights", steps: &[cluster, rights, end_account_and_role] },
    Story { name: "job that is forgotten", steps: &[cluster, short_job, live, work, live, minutes, live] },
    Story {
        name: "straggler",
        steps: &[
            cluster,
            slow_job,
            live,
            started,
            ten_seconds,
            work_but_one,
            ten_seconds,
            live,
            started,
            work,
            live,
        ],
    },
    Story {
        name: "statefulset rolled back by hand",
        steps: &[
            cluster,
            stateful_set,
            live,
            live,
            live,
            new_image,
            bind,
            new_image,
            bind,
            old_image,
            live,
            live,
            live,
        ],
    },
    Story {
        name: "deployment rolled back by itself",
        steps: &[
            cluster,
            careful_deployment,
            live,
            live,
            roll_deployment,
            bind,
            minutes_in_vain,
            live,
            live,
            live,
        ],
    },
    Story {
        name: "node that dies",
        steps: &[
            three_nodes,
            spread_pods,
            live,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            n1_is_silent,
            live,
            live,
        ],
    },
    Story {
        name: "node that is removed",
        steps: &[three_nodes, spread_pods, live, remove_n1, minutes, minutes, live],
    },
    Story {
        name: "names",
        steps: &[cluster, names, node_with_range, another_node_with_range, remove_n3, without_names],
    },
    Story { name: "namespace that ends", steps: &[cluster, full_namespace, live, end_namespace, live, live] },
    Story {
        name: "owners that end",
        steps: &[cluster, owners, live, end_owner_in_foreground, live, live, end_owner_leaving_pods, live],
    },
    Story {
        name: "mirrored endpoints",
        steps: &[cluster, outside, another_address, without_service, with_service_again],
    },
    Story {
        name: "zones of endpoints",
        steps: &[cluster, near_service, pods_with_addresses, zones, another_zone],
    },
    Story {
        name: "ranges of addresses",
        steps: &[cluster, ranges, end_range, ten_seconds, free_address, ten_seconds, ten_seconds],
    },
    Story { name: "tokens that nobody uses", steps: &[cluster, old_tokens, year, use_a_token, year, year] },
    Story { name: "quota", steps: &[cluster, quota, replication_controller, live, lose_a_pod, live] },
    Story {
        name: "autoscaler",
        steps: &[
            cluster,
            autoscaler,
            live,
            ten_minutes,
            live,
            less_load,
            ten_minutes,
            live,
            ten_minutes,
            live,
        ],
    },
    Story { name: "certificate request", steps: &[cluster, certificate_request, ten_minutes, ten_minutes] },
    Story { name: "joining", steps: &[cluster, joining, ten_minutes] },
];
