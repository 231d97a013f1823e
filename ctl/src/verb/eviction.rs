//! The flags of `amoeba node` that say when pods must go.

use std::time::Duration;

use kubelet::eviction::EvictionConfig;
use kubelet::eviction::threshold::{DEFAULT_HARD, hard, reclaim, soft};

use crate::failure::Failure;
use crate::text::parse_duration;

/// When pods are ended because the node runs out of something; names and defaults are upstream's.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Eviction")]
pub struct EvictionArgs {
    /// With less than this a pod is ended at once; empty: nothing is watched
    #[arg(long, value_name = "SIGNAL<VALUE,…>", default_value = DEFAULT_HARD)]
    eviction_hard: String,
    /// With less than this, for as long as its grace period, a pod is ended gracefully
    #[arg(long, value_name = "SIGNAL<VALUE,…>", default_value = "")]
    eviction_soft: String,
    /// How long each of these may last
    #[arg(long, value_name = "SIGNAL=TIME,…", default_value = "")]
    eviction_soft_grace_period: String,
    /// How much more than a threshold has to be free before it is over
    #[arg(long, value_name = "SIGNAL=VALUE,…", default_value = "")]
    eviction_minimum_reclaim: String,
    /// The longest that a pod gets to end after a soft threshold
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    eviction_max_pod_grace_period: Duration,
    /// How long a condition of the node holds after it was last seen
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    eviction_pressure_transition_period: Duration,
}

impl EvictionArgs {
    /// What the agent is told.
    ///
    /// # Errors
    /// A flag that can't be understood, by its name.
    pub fn config(&self) -> Result<EvictionConfig, Failure> {
        let of = |flag: &'static str| move |error| Failure::Usage(format!("--{flag}: {error}"));
        let mut thresholds = hard(&self.eviction_hard).map_err(of("eviction-hard"))?;
        let soft = soft(&self.eviction_soft, &self.eviction_soft_grace_period, parse_duration);
        thresholds.extend(soft.map_err(of("eviction-soft"))?);
        reclaim(&mut thresholds, &self.eviction_minimum_reclaim).map_err(of("eviction-minimum-reclaim"))?;
        Ok(EvictionConfig {
            thresholds,
            max_pod_grace: self.eviction_max_pod_grace_period,
            transition: self.eviction_pressure_transition_period,
        })
    }
}
