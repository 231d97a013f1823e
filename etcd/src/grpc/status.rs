//! How a call ends.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

/// gRPC's status codes. Source: the gRPC specification, `doc/statuscodes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller went away.
    Cancelled = 1,
    /// An error without a code.
    Unknown = 2,
    /// Can never succeed.
    InvalidArgument = 3,
    /// The caller's deadline passed.
    DeadlineExceeded = 4,
    /// There is no such thing.
    NotFound = 5,
    /// There is one already.
    AlreadyExists = 6,
    /// The caller may not.
    PermissionDenied = 7,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// Not in this state.
    FailedPrecondition = 9,
    /// Given up because of a conflict.
    Aborted = 10,
    /// Outside of what exists, here: of history.
    OutOfRange = 11,
    /// There is no such call.
    Unimplemented = 12,
    /// A broken invariant, or nonsense on the wire.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Data is damaged.
    DataLoss = 15,
    /// The caller is unknown.
    Unauthenticated = 16,
}

/// Code and text of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// What to read; clients of etcd compare it.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A failure.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// The client broke the protocol.
    pub fn malformed(why: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, format!("the request can't be read: {why}"))
    }

    /// The stream was reset or the connection is gone.
    pub fn cancelled(error: &h2::Error) -> Self {
        Self::new(Code::Cancelled, format!("the stream ended early: {error}"))
    }

    /// The trailers that say so.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert("grpc-status", HeaderValue::from(self.code as u16));
        let text = percent_encode(&self.message);
        if let Ok(text) = HeaderValue::try_from(text) {
            trailers.insert("grpc-message", text);
        }
        trailers
    }

    /// What trailers (or the headers of an answer without a body) say; `None` for success.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
        let code = Code::from_number(code.unwrap_or(2));
        let message = headers.get("grpc-message").map(|text| percent_decode(text.as_bytes()));
        (code != Code::Ok).then(|| Self::new(code, message.unwrap_or_default()))
    }
}

impl Code {
    fn from_number(number: u8) -> Self {
        use Code::{
            Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal,
            InvalidArgument, NotFound, Ok, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated,
            Unavailable, Unimplemented, Unknown,
        };
        let codes = [
            Ok,
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        codes.get(usize::from(number)).copied().unwrap_or(Unknown)
    }
}

/// Printable ASCII except `%` stays, as the gRPC specification wants it.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn percent_decode(text: &[u8]) -> String {
    let hex = |digit: Option<&u8>| char::from(*digit?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let escaped = (text[at] == b'%').then(|| Some(hex(text.get(at + 1))? << 4 | hex(text.get(at + 2))?));
        match escaped.flatten() {
            Some(byte) => out.push(byte),
            None => out.push(text[at]),
        }
        at += if escaped.flatten().is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_trailers() {
        for text in
            ["etcdserver: mvcc: required revision has been compacted", "100% naïve\nlines", "%zz%4", ""]
        {
            let status = Status::new(Code::OutOfRange, text);
            assert_eq!(Status::from_headers(&status.trailers()), Some(status));
        }
        let ok = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        assert_eq!(Status::from_headers(&ok), None);
    }

    #[test]
    fn every_code_has_its_number() {
        for number in 0..17 {
            assert_eq!(Code::from_number(number) as u8, number);
        }
        assert_eq!(Code::from_number(200), Code::Unknown);
    }
}
