//! Watches: a pure [`hub`] that knows what each watcher has to get next, with an [`interest`] index of who
//! wants what, and the [`task`] that gives it.

pub mod hub;
mod interest;
#[cfg(test)]
mod properties;
pub mod task;
