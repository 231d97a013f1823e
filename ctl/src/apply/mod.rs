//! Client-side apply, interoperable with kubectl's: what was applied last is remembered in an annotation,
//! and the difference of three states (last applied, live, wanted) becomes a patch.

pub mod atomic;
pub mod last_applied;
#[cfg(test)]
mod property;
pub mod rules;
pub mod target;
pub mod three_way;
