//! The verbs, each generic over resources.
//!
//! A verb gets a [`Call`] (who wants what of which resource) and gives a response or a failure. Reads of
//! many objects come from the cache, writes go to the store in one transaction with the revision that was
//! read as its condition.

pub mod binding;
pub mod component_status;
mod continue_token;
pub mod create;
pub mod decode;
pub mod delete;
pub mod delete_collection;
mod delete_options;
pub mod eviction;
mod fence;
pub mod get;
mod history;
pub mod list;
mod metadata;
mod options;
mod ownership;
mod past;
pub mod patch;
pub mod present;
pub mod review;
mod room;
pub mod scale;
mod server_side;
pub mod submit;
pub mod token_request;
pub mod update;
pub mod view;
pub mod watch;

use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, Response};
use store::kv::{Origin, Revision};

use crate::auth::Identity;
use crate::body::Body;
use crate::error::Outcome;
use crate::handle::ApiServer;
use crate::registry::resource::Resource;
use crate::request::RequestInfo;
use crate::storage::{Commit, Storage, Write};
use crate::transaction::Batch;

/// The header in which a controller says what it had seen when it decided to write: a resourceVersion.
const CAUSE: &str = "amoeba-cause";

/// One request for a resource, authenticated and authorized.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The server.
    pub server: &'a ApiServer,
    /// What is asked for.
    pub info: &'a RequestInfo,
    /// Of which resource.
    pub resource: &'a Arc<Resource>,
    /// By whom.
    pub identity: &'a Identity,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// If the request is a step of a transaction: where its writes are collected.
    pub batch: Option<&'a Batch>,
}

/// What a verb gives.
pub type Answer = Outcome<Response<Body>>;

impl Call<'_> {
    /// The store and its cache.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.server.storage
    }

    /// Warns the client of something, whatever becomes of its request.
    pub fn warn(&self, text: impl Into<String>) {
        self.info.warnings.add(text);
    }

    /// Writes now, or with the other steps of the transaction that this is a part of; only as long as the author
    /// leads, if the request says by which lease.
    pub async fn commit(&self, write: Write) -> Outcome<Commit> {
        match fence::Fence::of(self.headers)? {
            None => self.commit_unfenced(write).await,
            Some(fence) => fence::commit(self, &fence, write).await,
        }
    }

    async fn commit_unfenced(&self, write: Write) -> Outcome<Commit> {
        match self.batch {
            None => {
                let commit = self.storage().commit(write).await?;
                if let Commit::Done(revision) = &commit {
                    self.info.annotations.wrote(*revision);
                }
                Ok(commit)
            }
            Some(batch) => batch.take(self.storage(), write).await,
        }
    }

    /// The row as which the objects are stored; the call's own for most.
    pub fn home(&self) -> Arc<Resource> {
        let home = self.resource.stored_as.as_ref();
        let found = home.and_then(|home| self.server.registry.find(&home.group, &home.version, &home.plural));
        found.unwrap_or_else(|| self.resource.clone())
    }

    /// The namespace in the path; empty for resources of the cluster.
    pub fn namespace(&self) -> &str {
        match self.resource.namespaced {
            true => self.info.namespace.as_deref().unwrap_or_default(),
            false => "",
        }
    }

    /// The name in the path; empty if there is none.
    pub fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }

    /// "There is no such object", in upstream's words.
    pub fn not_found(&self, name: &str) -> api::status::Status {
        api::status::Status::not_found(&self.resource.plural, &self.resource.group, name)
    }

    /// "Somebody else changed it", in upstream's words.
    pub fn modified(&self, name: &str) -> api::status::Status {
        api::status::Status::modified(&self.resource.plural, &self.resource.group, name)
    }

    /// The revision whose observation made the client write, if it says so. Controllers do.
    fn cause(&self) -> Option<Revision> {
        let text = self.headers.get(CAUSE)?.to_str().ok()?;
        text.parse().ok().map(Revision)
    }

    /// Who writes, for the journal.
    pub fn origin(&self) -> Origin {
        let agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Origin {
            user: self.identity.user.clone(),
            agent: agent.split_whitespace().next().unwrap_or_default().to_owned(),
            verb: self.info.verb.as_str().to_owned(),
            cause: self.cause(),
        }
    }
}
