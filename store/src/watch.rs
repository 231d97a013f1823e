//! Watches: a pure [`hub`] that knows what each watcher has to get next, and the [`task`] that gives it.

pub mod hub;
pub mod task;
