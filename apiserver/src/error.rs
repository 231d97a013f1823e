//! Every failure of a request, and the one function that makes a Status of it.

use api::status::Status;
use store::kv::KvError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The answer is known already.
    #[error("answered with a status")]
    Status(Box<Status>),
    /// The store refused.
    #[error("use the store")]
    Store(#[from] KvError),
    /// What the store holds is no object.
    #[error("decode the stored object {key}")]
    Corrupt {
        /// Its storage key.
        key: String,
        /// Why it can't be read.
        #[source]
        source: serde_json::Error,
    },
    /// The client took too long, or the server did.
    #[error("finish in time")]
    Deadline,
}

/// The result of a step of a request.
pub type Outcome<T> = Result<T, Failure>;

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Failure {
    /// The HTTP code that a client gets.
    pub fn code(&self) -> u16 {
        match self {
            Self::Status(status) => status.code(),
            Self::Store(error) => store_status(error).code(),
            Self::Corrupt { .. } => 500,
            Self::Deadline => 504,
        }
    }

    /// The Status that a client gets.
    pub fn into_status(self) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::Store(error) => store_status(&error),
            Self::Corrupt { key, source } => {
                Status::internal(format!("decode stored object {key}: {source}"))
            }
            Self::Deadline => Status::timeout("request did not complete within the allotted timeout", 0),
        }
    }
}

fn store_status(error: &KvError) -> Status {
    let text = error.to_string();
    match error {
        KvError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        KvError::FutureRevision { requested, current } => {
            Status::too_large_resource_version(requested.0, current.0)
        }
        KvError::TooLarge { limit, .. } => Status::request_too_large(*limit),
        KvError::Unavailable(_) | KvError::Corrupt { .. } | KvError::Closed => Status::unavailable(text),
        // Unknown must not look like "nothing happened": a client has to read before it tries again.
        KvError::Unknown => Status::timeout(&text, 0),
        KvError::Overloaded => Status::too_many_requests(text, 1),
        // A full disk, as upstream says it; nothing that a client of this server sends leads to the others.
        KvError::NoSpace { .. }
        | KvError::LeaseNotFound(_)
        | KvError::LeaseExists(_)
        | KvError::KeyNotFound(_)
        | KvError::DuplicateKey(_)
        | KvError::Invalid(_) => Status::internal(text),
    }
}
