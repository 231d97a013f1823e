//! gzip for long answers, as upstream does it: to who accepts it, for reads, from 128 KiB on, at the fastest level.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::body::Body;

/// Shorter answers are sent faster than compressed.
const THRESHOLD: usize = 128 << 10;

/// The answer, compressed if that is worth it and wanted.
pub async fn compressed(request: &Parts, response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let wanted = request.method == Method::GET && head.status == StatusCode::OK && accepts_gzip(request);
    let plain = body.as_shared().filter(|bytes| wanted && bytes.len() >= THRESHOLD);
    let Some(plain) = plain.filter(|_| !head.headers.contains_key(CONTENT_ENCODING)) else {
        return Response::from_parts(head, body);
    };
    // Many megabytes take many milliseconds, in which no other request of this thread shall wait.
    let packed = tokio::task::spawn_blocking(move || pack(&plain)).await;
    let Ok(packed) = packed else { return Response::from_parts(head, body) };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(head, Body::from(packed))
}

fn pack(plain: &Bytes) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes every byte")
}

fn accepts_gzip(request: &Parts) -> bool {
    let values = request.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    async fn sent(size: usize, accept: &str, method: &str) -> (bool, Vec<u8>) {
        let request = Request::builder().method(method).header("accept-encoding", accept).body(());
        let (parts, ()) = request.expect("a request").into_parts();
        let response = compressed(&parts, Response::new(Body::from(vec![b'x'; size]))).await;
        let packed = response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (packed, body.to_vec())
    }

    #[tokio::test]
    async fn long_answers_are_packed_for_who_wants_it() {
        let (packed, body) = sent(THRESHOLD, "deflate, gzip;q=1.0", "GET").await;
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        assert!(packed && plain == vec![b'x'; THRESHOLD]);
        let others =
            [(THRESHOLD - 1, "gzip", "GET"), (THRESHOLD, "br, gzip;q=0", "GET"), (THRESHOLD, "gzip", "POST")];
        for (size, accept, method) in others {
            let (packed, body) = sent(size, accept, method).await;
            assert!(!packed && body.len() == size, "{size} {accept} {method}");
        }
    }
}
