//! The flags that say how those take turns of whom one acts at a time.

use std::time::Duration;

use client::election::ElectionConfig;

use crate::text::parse_duration;

/// The clock of a leader election; flags named as kube-scheduler's.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaderElectionArgs {
    /// How long the lease of a silent leader keeps others out
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    leader_elect_lease_duration: Duration,
    /// A leader stops acting when it couldn't renew for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    leader_elect_renew_deadline: Duration,
    /// Between two renewals
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    leader_elect_retry_period: Duration,
}

impl LeaderElectionArgs {
    /// The election with these times.
    pub fn timed(&self, election: ElectionConfig) -> ElectionConfig {
        ElectionConfig {
            lease: self.leader_elect_lease_duration,
            renew: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
            ..election
        }
    }
}
