//! How long a runtime takes for what it is asked, as upstream's kubelet counts it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::render::Text;

/// Bounds of the buckets in seconds (upstream's: 14 from 5 ms on, each 2.5 times the one before), without the last,
/// which hold less than half a day.
const BUCKETS: [f64; 8] =
    [0.005, 0.0125, 0.03125, 0.078125, 0.1953125, 0.48828125, 1.220703125, 3.0517578125];

/// What a runtime is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make what a pod's containers share, its place in the network included.
    RunPodSandbox,
    /// Make a container.
    CreateContainer,
    /// Have it run.
    StartContainer,
    /// End it, from the request until it has heard.
    StopContainer,
    /// Forget it.
    RemoveContainer,
}

impl Operation {
    const ALL: [Self; 5] = [
        Self::RunPodSandbox,
        Self::CreateContainer,
        Self::StartContainer,
        Self::StopContainer,
        Self::RemoveContainer,
    ];

    /// The value of upstream's label `operation_type`.
    fn name(self) -> &'static str {
        match self {
            Self::RunPodSandbox => "run_podsandbox",
            Self::CreateContainer => "create_container",
            Self::StartContainer => "start_container",
            Self::StopContainer => "stop_container",
            Self::RemoveContainer => "remove_container",
        }
    }
}

/// What is known of one operation.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    errors: u64,
    sum: Duration,
    /// How many lasted no longer than each bound.
    within: [u64; BUCKETS.len()],
}

impl Tally {
    fn add(&mut self, took: Duration, failed: bool) {
        self.count += 1;
        self.errors += u64::from(failed);
        self.sum += took;
        let bounds = BUCKETS.iter().zip(&mut self.within);
        bounds.filter(|(bound, _)| took.as_secs_f64() <= **bound).for_each(|(_, count)| *count += 1);
    }
}

/// Counts what a runtime was asked for. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Operations(Arc<Mutex<[Tally; Operation::ALL.len()]>>);

impl Operations {
    /// Does it, and counts it.
    pub async fn timed<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let result = work.await;
        self.0.lock()[operation as usize].add(begun.elapsed(), result.is_err());
        result
    }

    /// Prometheus' text of it: operations that never were have no lines.
    pub(super) fn render(&self, text: &mut Text) {
        let tallies = *self.0.lock();
        let seen: Vec<(&str, Tally)> = Operation::ALL
            .into_iter()
            .map(|operation| (operation.name(), tallies[operation as usize]))
            .filter(|(_, tally)| tally.count > 0)
            .collect();
        counter(text, "kubelet_runtime_operations_total", "Runtime operations", &seen, |tally| tally.count);
        let failed = "Runtime operations that failed";
        counter(text, "kubelet_runtime_operations_errors_total", failed, &seen, |tally| tally.errors);
        let name = "kubelet_runtime_operations_duration_seconds";
        text.family(name, "histogram", "Duration of runtime operations in seconds");
        for (operation, tally) in &seen {
            histogram(text, name, operation, tally);
        }
    }
}

fn counter(text: &mut Text, name: &str, help: &str, seen: &[(&str, Tally)], value: fn(&Tally) -> u64) {
    text.family(name, "counter", help);
    for (operation, tally) in seen {
        text.line(name, &[("operation_type", operation)], value(tally));
    }
}

fn histogram(text: &mut Text, name: &str, operation: &str, tally: &Tally) {
    let label = ("operation_type", operation);
    for (bound, count) in BUCKETS.iter().zip(&tally.within) {
        text.line(&format!("{name}_bucket"), &[label, ("le", &bound.to_string())], count);
    }
    text.line(&format!("{name}_bucket"), &[label, ("le", "+Inf")], tally.count);
    text.line(&format!("{name}_sum"), &[label], tally.sum.as_secs_f64());
    text.line(&format!("{name}_count"), &[label], tally.count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_counts() {
        let mut tally = Tally::default();
        tally.add(Duration::from_millis(10), false);
        tally.add(Duration::from_millis(200), true);
        let operations = Operations::default();
        operations.0.lock()[Operation::StartContainer as usize] = tally;
        let mut text = Text::default();
        operations.render(&mut text);
        let text = text.into_string();
        let name = "kubelet_runtime_operations";
        for line in [
            "_total{operation_type=\"start_container\"} 2",
            "_errors_total{operation_type=\"start_container\"} 1",
            "_duration_seconds_bucket{operation_type=\"start_container\",le=\"0.005\"} 0",
            "_duration_seconds_bucket{operation_type=\"start_container\",le=\"0.0125\"} 1",
            "_duration_seconds_bucket{operation_type=\"start_container\",le=\"0.48828125\"} 2",
            "_duration_seconds_bucket{operation_type=\"start_container\",le=\"+Inf\"} 2",
            "_duration_seconds_sum{operation_type=\"start_container\"} 0.21",
        ] {
            assert!(text.contains(&format!("{name}{line}\n")), "{line} in\n{text}");
        }
        assert!(!text.contains("run_podsandbox"), "{text}");
    }

    #[tokio::test]
    async fn what_fails_is_counted_and_told() {
        let operations = Operations::default();
        let result: Result<(), &str> =
            operations.timed(Operation::RunPodSandbox, async { Err("no network") }).await;
        assert_eq!(result, Err("no network"));
        let tally = operations.0.lock()[Operation::RunPodSandbox as usize];
        assert_eq!((tally.count, tally.errors), (1, 1));
    }
}
