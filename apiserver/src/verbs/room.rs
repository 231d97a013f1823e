//! Room on nodes that several schedulers share: a binding that was decided without knowing of another's is refused.
//!
//! Ours, beyond upstream. Each scheduler decides on what it has seen, and two may give away the same room at once. One
//! that says in the header `Amoeba-Room` what it has seen (`REVISION/SCHEDULER`) is refused with 409 if another that
//! says so, too, has bound a pod to the node since; it decides anew once it has seen that. Who bound last is written
//! beside the pod, in its transaction, so there is no moment in between; a scheduler's own bindings never refuse each
//! other, and those of schedulers without the header are neither judged nor counted.

use api::status::Status;
use bytes::Bytes;
use http::HeaderMap;
use store::kv::Revision;

use super::Call;
use crate::error::Outcome;
use crate::storage::{Also, key};

/// The header, as schedulers send it.
const HEADER: &str = "amoeba-room";

/// On which knowledge a binding was decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    seen: Revision,
    scheduler: String,
}

impl Room {
    /// What a request says of it, if it does.
    ///
    /// # Errors
    /// 400 if it can't be read: a binding that wants to be judged is never made without.
    pub fn of(headers: &HeaderMap) -> Result<Option<Room>, Status> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        Room::parse(text).map(Some).ok_or_else(|| {
            Status::bad_request(format!(
                "Amoeba-Room: invalid value {text:?}: it must be REVISION/SCHEDULER, the newest resourceVersion \
                 that the scheduler has seen of pods, and its name"
            ))
        })
    }

    fn parse(text: &str) -> Option<Room> {
        let (seen, scheduler) = text.split_once('/')?;
        let seen = Revision(seen.parse().ok()?);
        (!scheduler.is_empty()).then(|| Room { seen, scheduler: scheduler.to_owned() })
    }

    /// The write by which the scheduler becomes the one that bound last to the node.
    ///
    /// # Errors
    /// 409 if that is another, of whose binding it doesn't know.
    pub async fn take(&self, call: &Call<'_>, node: &str) -> Outcome<Also> {
        let key = key::room(node);
        let stored = call.storage().read(&key).await?;
        let expected = stored.as_ref().map_or(Revision(0), |stored| stored.revision);
        let last = stored.map(|stored| stored.json);
        if let Some(other) = last.filter(|last| expected > self.seen && **last != *self.scheduler.as_bytes())
        {
            let why = format!(
                "{} has bound a pod to node {node} at revision {expected}, and this was decided on what was seen up \
                 to revision {}",
                String::from_utf8_lossy(&other),
                self.seen
            );
            return Err(Status::conflict("pods/binding", "", call.name(), &why).into());
        }
        Ok(Also { key, expected, value: Some(Bytes::from(self.scheduler.clone())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_and_by_whom_or_nothing() {
        let room = Room::parse("12/a/b").expect("a room");
        assert_eq!((room.seen, room.scheduler.as_str()), (Revision(12), "a/b"));
        for wrong in ["", "12", "12/", "x/a", "-1/a"] {
            assert_eq!(Room::parse(wrong), None, "{wrong}");
        }
    }
}
