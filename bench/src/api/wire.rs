//! Just enough HTTP/1.1 over TLS to put load on an API server: the generator shares the machine with what it
//! measures, so it must cost little. A request is one write; of an answer only the status and the length are read.

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::kubeconfig::Target;

/// Room for one read.
const READ: usize = 64 << 10;

/// An open connection: requests one after another, or one watch.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    /// The headers that every request has.
    common: String,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

impl Wire {
    /// Connects and shakes hands.
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(target.tls.clone());
        let stream = connector.connect(target.name.clone(), stream).await.context("TLS handshake")?;
        let mut common = format!(
            "host: {}\r\naccept: application/json\r\nuser-agent: amoeba-bench/1\r\n\
             content-type: application/json\r\n",
            target.address
        );
        if let Some(token) = &target.token {
            common.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        Ok(Self { stream, input: BytesMut::with_capacity(READ), common })
    }

    /// Sends a request and reads the whole answer: its status and its body.
    pub async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.request(method, path, body).await?;
        let (status, length) = self.head().await?;
        let mut body = Vec::new();
        self.body(length, &mut |piece| body.extend_from_slice(piece)).await?;
        Ok((status, body))
    }

    /// Sends a request that must succeed, and gives the size of its answer.
    pub async fn expect(&mut self, method: &str, path: &str, body: &[u8]) -> Result<usize> {
        let (status, answer) = self.send(method, path, body).await?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer.len())
    }

    /// Opens a watch; [`Wire::watch_piece`] reads it.
    pub async fn watch(&mut self, path: &str) -> Result<()> {
        self.request("GET", path, &[]).await?;
        match self.head().await? {
            (200, Length::Chunked) => Ok(()),
            (status, length) => bail!("watch {path}: {status}, {length:?}"),
        }
    }

    /// The next piece of a watch goes to `take`; false at the watch's end.
    pub async fn watch_piece(&mut self, take: &mut impl FnMut(&[u8])) -> Result<bool> {
        self.chunk(take).await
    }

    async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let head =
            format!("{method} {path} HTTP/1.1\r\n{}content-length: {}\r\n\r\n", self.common, body.len());
        let mut whole = head.into_bytes();
        whole.extend_from_slice(body);
        self.stream.write_all(&whole).await.context("send")?;
        self.stream.flush().await.context("send")
    }

    async fn head(&mut self) -> Result<(u16, Length)> {
        loop {
            if let Some(end) = find(&self.input, b"\r\n\r\n") {
                let head = self.input.split_to(end + 4);
                return parse_head(&head);
            }
            self.read().await?;
        }
    }

    async fn body(&mut self, length: Length, take: &mut impl FnMut(&[u8])) -> Result<()> {
        match length {
            Length::Bytes(bytes) => self.exactly(bytes, take).await,
            Length::Chunked => {
                while self.chunk(take).await? {}
                Ok(())
            }
        }
    }

    async fn exactly(&mut self, mut left: usize, take: &mut impl FnMut(&[u8])) -> Result<()> {
        while left > 0 {
            if self.input.is_empty() {
                self.read().await?;
            }
            let piece = self.input.len().min(left);
            take(&self.input[..piece]);
            self.input.advance(piece);
            left -= piece;
        }
        Ok(())
    }

    /// One chunk; false after the last.
    async fn chunk(&mut self, take: &mut impl FnMut(&[u8])) -> Result<bool> {
        let end = loop {
            match find(&self.input, b"\r\n") {
                Some(end) => break end,
                None => self.read().await?,
            }
        };
        let size = std::str::from_utf8(&self.input[..end]).context("a chunk's size")?;
        let size =
            usize::from_str_radix(size.trim(), 16).with_context(|| format!("a chunk's size {size:?}"))?;
        self.input.advance(end + 2);
        self.exactly(size, take).await?;
        self.exactly(2, &mut |_| {}).await?;
        Ok(size > 0)
    }

    async fn read(&mut self) -> Result<()> {
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await.context("receive")? {
            0 => bail!("the server closed the connection"),
            _ => Ok(()),
        }
    }
}

fn parse_head(head: &[u8]) -> Result<(u16, Length)> {
    let head = std::str::from_utf8(head).context("the answer's head")?;
    let status = head.get(9..12).and_then(|code| code.parse().ok()).context("the answer's status")?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let length = match field("content-length") {
        Some(length) => Length::Bytes(length.parse().context("content-length")?),
        None if field("transfer-encoding").is_some() => Length::Chunked,
        None => Length::Bytes(0),
    };
    Ok((status, length))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_status_and_length() {
        let cases: [(&[u8], (u16, Length)); 3] = [
            (b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n", (201, Length::Bytes(12))),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", (200, Length::Chunked)),
            (b"HTTP/1.1 204 No Content\r\n\r\n", (204, Length::Bytes(0))),
        ];
        for (head, expected) in cases {
            assert_eq!(parse_head(head).expect("a head"), expected);
        }
        assert!(parse_head(b"nonsense\r\n\r\n").is_err());
    }
}
