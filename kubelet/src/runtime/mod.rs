//! What runs containers.

pub mod fake;
pub mod native;
