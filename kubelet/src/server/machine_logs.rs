//! The machine's own logs, as upstream shows them under `/logs/`: what lies below `/var/log`, and nothing that a link
//! there leads to elsewhere.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use futures::stream::unfold;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use nix::fcntl::OFlag;
use tokio::io::AsyncReadExt;

use crate::confined::{Confined, by_descriptor};
use crate::server::answer::Body;
use crate::server::route::Refusal;

/// Where machines keep their logs.
pub const DIRECTORY: &str = "/var/log";
/// How much of a file is read at once.
const CHUNK: usize = 64 << 10;

/// Shows a file, or what is in a directory; `path` is below `root`.
///
/// # Errors
/// Nothing of the kind is there, or it can't be read.
pub async fn show(root: &'static Path, path: String) -> Result<Response<Body>, Refusal> {
    let found = tokio::task::spawn_blocking(move || look(root, &path)).await;
    let found = found.map_err(io::Error::other).and_then(|found| found);
    match found {
        Ok(Found::Page(page)) => Ok(of_type("text/html; charset=utf-8", whole(page))),
        Ok(Found::File(file)) => Ok(of_type("text/plain; charset=utf-8", streamed(file))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err((StatusCode::FORBIDDEN, "403 Forbidden".to_owned()))
        }
        Err(_) => Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    }
}

#[derive(Debug)]
enum Found {
    Page(String),
    File(File),
}

fn look(root: &Path, path: &str) -> io::Result<Found> {
    let root = Confined::open(root)?;
    // A pipe there would be waited for.
    let file =
        File::from(root.lookup(Path::new(path.trim_matches('/')), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
    let meta = file.metadata()?;
    if meta.is_dir() {
        return page(&by_descriptor(file.as_fd())).map(Found::Page);
    }
    if meta.is_file() { Ok(Found::File(file)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// As Go's file server lists a directory.
fn page(dir: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let escaped = |name: &str| {
        name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
    };
    let lines: String =
        names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name))).collect();
    Ok(format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{lines}</pre>\n"
    ))
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

fn streamed(file: File) -> Body {
    let chunks = unfold(tokio::fs::File::from_std(file), async |mut file| {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Ok(Frame::data(Bytes::from(chunk))), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    BodyExt::boxed(StreamBody::new(chunks))
}

fn of_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn shown(root: &'static Path, path: &str) -> Result<String, u16> {
        let shown = show(root, path.to_owned()).await.map_err(|(code, _)| code.as_u16())?;
        let body = shown.into_body().collect().await.expect("a body").to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn files_and_directories_are_shown_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir").keep();
        let root: &'static Path = Box::leak(dir.into_boxed_path());
        fs::create_dir(root.join("apt")).expect("a directory");
        let long = "line\n".repeat(30_000);
        fs::write(root.join("apt/term.log"), &long).expect("a file");
        fs::write(root.join("a<b"), "").expect("a file");
        symlink("/etc/passwd", root.join("out")).expect("a link");
        symlink("apt/term.log", root.join("term")).expect("a link");
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let list = shown(root, "/").await.expect("a list");
        assert!(list.contains("<a href=\"a&lt;b\">a&lt;b</a>\n<a href=\"apt/\">apt/</a>\n"), "{list}");
        for path in ["apt/term.log", "/apt/term.log", "term"] {
            assert_eq!(shown(root, path).await.as_ref(), Ok(&long), "{path}");
        }
        for path in ["none", "out", "../../../etc/passwd", "pipe", "apt/term.log/x"] {
            assert_eq!(shown(root, path).await, Err(404), "{path}");
        }
        fs::remove_dir_all(root).expect("removed");
    }
}
