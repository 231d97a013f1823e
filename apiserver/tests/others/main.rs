//! The API server reaches others: real listeners on loopback, over real TLS where there is some.

mod aggregation;
mod cluster;
mod oidc;
mod proxy;
mod webhooks;
