//! What is noted about a request for the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use store::kv::Revision;

/// The note that names the revisions which the request wrote: one, or the first and the last.
const REVISION: &str = "amoeba.dev/revision";

/// Notes by their keys, such as `pod-security.kubernetes.io/enforce-policy`.
#[derive(Debug, Default)]
pub struct Annotations {
    notes: Mutex<BTreeMap<String, String>>,
    written: Mutex<Option<(Revision, Revision)>>,
}

impl Annotations {
    /// Notes something. What was noted first under a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        self.notes.lock().entry(key.into()).or_insert_with(|| value.into());
    }

    /// Notes that the request made this revision, under which the journal knows the write.
    pub fn wrote(&self, revision: Revision) {
        let mut written = self.written.lock();
        let (first, last) = written.unwrap_or((revision, revision));
        *written = Some((first.min(revision), last.max(revision)));
    }

    /// All notes.
    pub fn all(&self) -> BTreeMap<String, String> {
        let mut notes = self.notes.lock().clone();
        let text = self.written.lock().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        notes.extend(text.map(|text| (REVISION.to_owned(), text)));
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revisions_of_a_request_are_one_or_a_span() {
        let notes = Annotations::default();
        assert_eq!(notes.all().get(REVISION), None);
        notes.wrote(Revision(7));
        assert_eq!(notes.all()[REVISION], "7");
        notes.wrote(Revision(9));
        notes.wrote(Revision(8));
        assert_eq!(notes.all()[REVISION], "7-9");
    }
}
