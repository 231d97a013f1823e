//! What the agent itself decides about a pod's end.

use api::self_fence;

/// How the message of a pod begins that wasn't taken in; upstream's words.
const REJECTED: &str = "Pod was rejected: ";

/// A terminal phase decided by the agent rather than by the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// The node ended a pod that would have gone on: the condition `DisruptionTarget` says so.
    pub disruption: bool,
}

impl Verdict {
    /// The pod's own fault, or nobody's.
    pub fn plain(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, disruption: false }
    }

    /// It may run elsewhere, since nobody heard of the node.
    pub fn fenced() -> Self {
        Self::disruption(self_fence::REASON, self_fence::MESSAGE.to_owned())
    }

    /// The node's.
    pub fn disruption(reason: &str, message: String) -> Self {
        Self { disruption: true, ..Self::plain(reason, message) }
    }
    /// The pod isn't taken in.
    pub fn rejecting(self) -> Self {
        Self { message: format!("{REJECTED}{}", self.message), ..self }
    }

    /// The pod was never taken in.
    pub fn is_rejection(&self) -> bool {
        self.message.starts_with(REJECTED)
    }
}
