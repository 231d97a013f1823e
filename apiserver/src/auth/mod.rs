//! Who asks, and may they: authentication and authorization.
//!
//! Every request gets an [`Identity`] ([`Authenticator`], [`act_as`]) and every act is judged once ([`Authorizer`]),
//! from the same [`crate::request::RequestInfo`] that dispatch uses. Nothing is allowed that no rule
//! allows. Credentials are never kept or logged: of a token that isn't being judged only its SHA-256 exists here.

mod account_tokens;
pub mod accounts;
mod attributes;
mod authenticate;
mod authorizer;
mod bootstrap_token;
mod escalation;
mod identity;
mod impersonate;
pub mod jwt;
pub mod node;
mod node_graph;
pub mod oidc;
mod rbac;
pub mod reviews;
mod rules;
pub mod token_tracking;
mod tokens;

pub use account_tokens::{AccountPolicy, AccountTokens};
pub use attributes::Attributes;
pub use authenticate::Authenticator;
pub use authorizer::{Authorizer, Decision};
pub use identity::{ANONYMOUS, AUTHENTICATED_GROUP, Identity, UNAUTHENTICATED_GROUP};
pub use impersonate::act_as;
pub use rbac::RbacView;
pub use rules::Rule;
pub use tokens::{TokenError, TokenTable};

#[cfg(test)]
mod matrix;
