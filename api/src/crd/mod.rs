//! Custom kinds: what a CustomResourceDefinition says, and what that means for its objects.
//!
//! A definition's schema is compiled into a [`Structural`] once; pruning, defaulting and validation of
//! objects walk it side by side with the value. Which texts a client sees is upstream's
//! (`apiextensions-apiserver` and `kube-openapi` 1.37). Functions over values: who serves and stores custom
//! objects isn't known here.

mod declared;
mod default;
mod definition;
mod embedded;
mod format;
mod go;
mod prune;
mod rules;
mod rules_check;
mod schema_rules;
mod structural;
mod structural_rules;
mod validate;

pub use default::default;
pub use definition::{unrecognized_formats, validate_definition, validate_definition_update};
pub use embedded::{envelope, typed};
pub(crate) use format::holds as format_holds;
pub(crate) use go::float as go_float;
pub use prune::prune;
pub use rules::validate_rules;
pub use structural::{Additional, Structural, Type, Values};
pub use validate::{validate, validate_object};

#[cfg(test)]
mod properties;
