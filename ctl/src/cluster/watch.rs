//! A watch that doesn't end: events of a list, resumed from the last resourceVersion after each break.
//!
//! The reader gets every change after the list it started from, in order, or an error: never a silent gap.
//! When the history is gone (410) the error says so and the caller lists again.

use std::pin::Pin;

use bytes::{Buf as _, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::Cluster;
use super::path::Query;
use super::request::{RequestError, status_of};

/// One change. For a Table watch the object is a Table of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after it, or before its deletion.
    pub object: Value,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is new to this watch.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or no longer selected.
    Deleted,
}

impl EventKind {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "ADDED" => Some(Self::Added),
            "MODIFIED" => Some(Self::Modified),
            "DELETED" => Some(Self::Deleted),
            _ => None,
        }
    }
}

/// What is watched and from where.
#[derive(Clone, Debug)]
pub struct WatchStart {
    /// The collection.
    pub path: String,
    /// Selectors.
    pub query: Query,
    /// Changes after this are delivered.
    pub resource_version: String,
    /// Ask for Tables.
    pub as_table: bool,
}

/// A running watch; dropping it ends it.
pub struct Watch<'a> {
    cluster: &'a Cluster,
    start: WatchStart,
    lines: Option<Lines>,
}

type Lines = Pin<Box<dyn Stream<Item = Result<Value, RequestError>> + Send>>;

impl Cluster {
    /// Follows a collection. Nothing is sent before the first [`Watch::next`].
    pub fn watch(&self, start: WatchStart) -> Watch<'_> {
        Watch { cluster: self, start, lines: None }
    }
}

impl Watch<'_> {
    /// The next change. A broken or finished connection is opened again where it left off.
    pub async fn next(&mut self) -> Result<Event, RequestError> {
        loop {
            if self.lines.is_none() {
                self.lines = Some(self.open().await?);
            }
            let line = match &mut self.lines {
                Some(lines) => lines.next().await,
                None => None,
            };
            match line {
                // The server ends a watch after some time: that is normal. A break is the same to us:
                // either the next request works, or its error is the one to report.
                None | Some(Err(RequestError::Broken { .. })) => self.lines = None,
                Some(Err(error)) => return Err(error),
                Some(Ok(line)) => {
                    if let Some(event) = self.take(line)? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Lines, RequestError> {
        let query = self.start.query.clone().with("watch", "true").with("allowWatchBookmarks", "true");
        let query = query.with("resourceVersion", &self.start.resource_version);
        let body = self.cluster.open_watch(&query.on(&self.start.path), self.start.as_table).await?;
        Ok(Box::pin(values(body, self.cluster.address.clone(), self.start.path.clone())))
    }

    /// Remembers how far we are; bookmarks are swallowed.
    fn take(&mut self, mut line: Value) -> Result<Option<Event>, RequestError> {
        let object = line["object"].take();
        if line["type"] == "ERROR" {
            return Err(RequestError::Status(Box::new(status_of(&object, 500))));
        }
        if let Some(version) = resource_version(&object) {
            self.start.resource_version = version;
        }
        Ok(EventKind::parse(line["type"].as_str().unwrap_or_default()).map(|kind| Event { kind, object }))
    }
}

/// Of an object or of a Table: a Table of a watch names it in its metadata or only in its row's object.
fn resource_version(object: &Value) -> Option<String> {
    let of = |metadata: &Value| {
        metadata["resourceVersion"].as_str().filter(|rv| !rv.is_empty()).map(str::to_owned)
    };
    of(&object["metadata"]).or_else(|| of(&object["rows"][0]["object"]["metadata"]))
}

/// The lines of a body as JSON values.
fn values(
    body: Body,
    address: String,
    path: String,
) -> impl Stream<Item = Result<Value, RequestError>> + Send + 'static {
    lines(body, address.clone()).and_then(move |line| {
        let parsed = serde_json::from_slice(&line);
        let failed = |source| RequestError::NotJson { address: address.clone(), path: path.clone(), source };
        futures::future::ready(parsed.map_err(failed))
    })
}

/// The lines of a body without their ends. The last line counts even without an end.
pub fn lines(
    body: Body,
    address: String,
) -> impl Stream<Item = Result<bytes::Bytes, RequestError>> + Send + 'static {
    let chunks = Box::pin(body.into_data_stream());
    futures::stream::try_unfold(
        (chunks, BytesMut::new(), false),
        move |(mut chunks, mut buffer, mut ended)| {
            let address = address.clone();
            async move {
                loop {
                    if let Some(line) = split_line(&mut buffer, ended) {
                        return Ok(Some((line, (chunks, buffer, ended))));
                    }
                    if ended {
                        return Ok(None);
                    }
                    match chunks.next().await {
                        Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                        Some(Err(source)) => {
                            return Err(RequestError::Broken { address, source: source.into() });
                        }
                        None => ended = true,
                    }
                }
            }
        },
    )
}

fn split_line(buffer: &mut BytesMut, ended: bool) -> Option<bytes::Bytes> {
    match buffer.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = buffer.split_to(end).freeze();
            buffer.advance(1);
            Some(line)
        }
        None if ended && !buffer.is_empty() => Some(buffer.split().freeze()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_split_wherever_the_chunks_end() {
        let mut buffer = BytesMut::from(&b"a\nbc\nd"[..]);
        let mut split = |ended| split_line(&mut buffer, ended).map(|line| line.to_vec());
        assert_eq!(split(false), Some(b"a".to_vec()));
        assert_eq!(split(false), Some(b"bc".to_vec()));
        assert_eq!(split(false), None);
        assert_eq!(split(true), Some(b"d".to_vec()));
        assert_eq!(split(true), None);
    }

    #[test]
    fn the_version_of_a_table_is_that_of_its_row_when_it_has_none_itself() {
        let row = json!({"metadata": {}, "rows": [{"object": {"metadata": {"resourceVersion": "7"}}}]});
        assert_eq!(resource_version(&row), Some("7".to_owned()));
        assert_eq!(resource_version(&json!({"metadata": {"resourceVersion": "8"}})), Some("8".to_owned()));
        assert_eq!(resource_version(&json!({})), None);
    }
}
