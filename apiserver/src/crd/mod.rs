//! The life of CustomResourceDefinitions: names are accepted, resources published, objects deleted with them.
//!
//! [`feed`] follows the store's watch and publishes rows to the registry of this server; [`status`] decides
//! what a definition's status should be, and [`controller`] writes that and cleans up; `registration` has the
//! APIServices of what is served.

pub mod controller;
pub mod conversion;
pub mod feed;
mod registration;
pub mod status;

pub use status::set_condition;

/// Group of the definitions themselves.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Plural name of the definitions themselves.
pub const PLURAL: &str = "customresourcedefinitions";
