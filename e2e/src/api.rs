//! A small HTTPS client of the API server: one request a connection, and watches line by line.
//!
//! It exists because a fault test must know exactly which request was acknowledged with which
//! resourceVersion: nothing here retries, caches or keeps a connection that a fault could have confused.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// How to reach the API server with the administrator's certificate.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// An answer with its status code.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The object, list or `Status`.
    pub object: Value,
}

type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl Api {
    /// Of the API server on this loopback port, with the credentials of `kubeconfig` as `amoeba up` writes it.
    ///
    /// # Panics
    /// If the file isn't as expected.
    pub fn new(port: u16, kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let pem = |field: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(field));
            base64(line.unwrap_or_else(|| panic!("no {field} in the kubeconfig")).trim())
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&pem("certificate-authority-data:")) {
            roots.add(authority).expect("an authority's certificate");
        }
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data:")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&pem("client-certificate-data:")), key)
            .expect("a certificate and its key");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), tls: Arc::new(tls) }
    }

    /// One request. An error says that it is unknown whether the server did it.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> io::Result<Answer> {
        let (code, mut body) = self.send(method, path, body, patience)?;
        let mut text = Vec::new();
        body.read_to_end(&mut text)?;
        Ok(Answer { code, object: serde_json::from_slice(&text).map_err(io::Error::other)? })
    }

    /// Follows a watch, one event a call of `next`, until the connection ends or is silent for `patience`.
    pub fn watch(
        &self,
        path: &str,
        patience: Duration,
    ) -> io::Result<impl Iterator<Item = io::Result<Value>> + use<>> {
        let (code, body) = self.send("GET", path, None, patience)?;
        let lines = BufReader::new(body).lines();
        let events = lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::other));
        match code {
            200 => Ok(events),
            _ => Err(io::Error::other(format!("HTTP {code}: {:?}", events.flatten().next()))),
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> io::Result<(u16, Body)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut connection = self.connect(patience)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nConnection: close\r\n\
             Content-Type: application/json\r\nUser-Agent: e2e\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.get_mut().write_all(request.as_bytes())?;
        connection.get_mut().flush()?;
        let code = read_line(&mut connection)?.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = BTreeMap::new();
        loop {
            let line = read_line(&mut connection)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let code = code.ok_or_else(|| io::Error::other("no status line"))?;
        Ok((code, Body { connection, chunked, left: if chunked { 0 } else { length } }))
    }

    fn connect(&self, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let tls = ClientConnection::new(self.tls.clone(), name).map_err(io::Error::other)?;
        Ok(BufReader::new(StreamOwned::new(tls, stream)))
    }
}

/// A body of known length or in chunks.
struct Body {
    connection: Connection,
    chunked: bool,
    /// Bytes left of the body, or of its chunk.
    left: usize,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.chunked {
            let size = read_line(&mut self.connection)?;
            self.left = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            self.chunked = self.left > 0;
        }
        let wanted = out.len().min(self.left);
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.connection.read(&mut out[..wanted])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got;
        if self.left == 0 && self.chunked {
            read_line(&mut self.connection)?;
        }
        Ok(got)
    }
}

fn read_line(connection: &mut Connection) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("certificates")
}

/// Decodes standard base64.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().take_while(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).expect("a base64 digit");
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).expect("a byte"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64(""), b"");
        assert_eq!(base64("YQ=="), b"a");
        assert_eq!(base64("LS0tLS1CRUdJTg=="), b"-----BEGIN");
    }
}
