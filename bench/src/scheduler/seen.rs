//! What is read of a watch's event: little, and without copying, since the generator shares the machine.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::borrow::Cow;

/// The object of an event.
#[derive(Debug, Deserialize)]
pub struct Seen<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(default)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status<'a>,
}

#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    object: Seen<'a>,
}

#[derive(Debug, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Option<Cow<'a, str>>,
    priority: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Option<Cow<'a, str>>,
    #[serde(borrow)]
    completion_time: Option<Cow<'a, str>>,
}

impl Seen<'_> {
    /// Namespace and name.
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// A pod that is bound.
    pub fn is_bound(&self) -> bool {
        self.spec.node_name.is_some()
    }

    /// A bound pod of more than no priority.
    pub fn is_important_and_bound(&self) -> bool {
        self.is_bound() && self.spec.priority.is_some_and(|priority| priority > 0)
    }

    /// A pod that runs.
    pub fn is_running(&self) -> bool {
        self.status.phase.as_deref() == Some("Running")
    }

    /// A Job that is complete.
    pub fn is_complete(&self) -> bool {
        self.status.completion_time.is_some()
    }
}

/// Splits what arrives into lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Reads the lines that are complete now.
    pub fn take(&mut self, piece: &[u8], mut see: impl FnMut(&Seen<'_>)) -> Result<()> {
        self.partial.extend_from_slice(piece);
        let mut rest = self.partial.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let event: Event<'_> = serde_json::from_slice(&rest[..end]).context("an event of the watch")?;
            see(&event.object);
            rest = &rest[end + 1..];
        }
        let left = rest.len();
        self.partial.drain(..self.partial.len() - left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_however_they_are_cut() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n"},"spec":{"priority":0}}}"#,
            "\n",
            r#"{"type":"MODIFIED","object":{"metadata":{"name":"a\n","namespace":"n"},"spec":{"nodeName":"x",
            "priority":5},"status":{"phase":"Running"}}}"#
        );
        let text = text.replace("\n            ", "") + "\n";
        for cut in 1..text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(cut) {
                let note = |one: &Seen<'_>| {
                    seen.push((one.key(), one.is_bound(), one.is_important_and_bound(), one.is_running()));
                };
                lines.take(piece, note).expect("whole lines");
            }
            let expected = [("n/a".to_owned(), false, false, false), ("n/a\n".to_owned(), true, true, true)];
            assert_eq!(seen, expected);
        }
    }
}
