//! A server of a test's own on loopback: a function answers, and what was asked is kept.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// With its query.
    pub path: String,
    /// Who asked.
    pub authorization: Option<String>,
}

/// Status, headers and body.
pub type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

type Answerer = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// The server; ends with its test.
pub struct Web {
    /// `127.0.0.1:PORT`
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

impl Web {
    /// Who listens is told where before the function is made that answers.
    pub async fn start<A>(tls: Option<rustls::ServerConfig>, answer: impl FnOnce(&str) -> A) -> Self
    where
        A: Fn(&Asked) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let answer: Answerer = Arc::new(answer(&address));
        let asked = Arc::new(Mutex::default());
        let mut serving = JoinSet::new();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        serving.spawn(accept(listener, acceptor, answer, asked.clone()));
        Self { address, asked, _serving: serving }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    answer: Answerer,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answer, asked) = (acceptor.clone(), answer.clone(), asked.clone());
        serving.spawn(async move {
            match acceptor {
                None => serve(stream, answer, asked).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, answer, asked).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    answer: Answerer,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        let one = Asked {
            path: request.uri().to_string(),
            authorization: request.headers().get("authorization").map(text),
        };
        let (status, headers, body) = answer(&one);
        asked.lock().push(one);
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let response = response.body(Full::new(Bytes::from(body))).expect("well formed");
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
