//! A runtime in which nothing runs.

/// What the fake runtime does with the containers it is asked to run.
#[derive(Clone, Debug, Default)]
pub struct FakeScript {
    /// Between the request to start a container and its start.
    pub start_delay: std::time::Duration,
}
