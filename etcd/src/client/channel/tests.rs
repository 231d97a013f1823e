use super::*;
use crate::proto::etcdserverpb as pb;

/// A server that answers each call as soon as its message is there, and then drops the stream, as Go's
/// does.
async fn hasty_server(socket: TcpStream) {
    let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            body.data().await.expect("a message").expect("a frame");
            assert!(body.is_end_stream(), "the message and the end of the call are one frame");
            let mut answer = respond.send_response(Response::new(()), false).expect("an open stream");
            answer.send_data(encode(&pb::StatusResponse::default()), false).expect("an open stream");
            answer.send_trailers(http::HeaderMap::new()).expect("an open stream");
        });
    }
}

#[tokio::test]
async fn an_answer_counts_even_if_the_stream_is_gone_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let endpoint = listener.local_addr().expect("an address").to_string();
    let server = tokio::spawn(async move { hasty_server(listener.accept().await.expect("a call").0).await });
    let channel = Channel::new(&[endpoint], None).expect("an endpoint");
    for _ in 0..200 {
        let path = "etcdserverpb.Maintenance/Status";
        let answer: Result<pb::StatusResponse, _> =
            channel.unary(path, &pb::StatusRequest {}, Duration::from_secs(5)).await;
        assert_eq!(answer.expect("answered"), pb::StatusResponse::default());
    }
    server.abort();
}

#[test]
fn endpoints_are_urls_or_addresses() {
    let parsed =
        |text: &str, tls| Endpoint::parse(text, tls).map(|endpoint| (endpoint.host, endpoint.secure)).ok();
    assert_eq!(parsed("http://10.0.0.1:2379", false), Some(("10.0.0.1".into(), false)));
    assert_eq!(parsed("https://etcd.example:2379/", true), Some(("etcd.example".into(), true)));
    assert_eq!(parsed("[::1]:2379", true), Some(("::1".into(), true)));
    assert_eq!(parsed("127.0.0.1:2379", false), Some(("127.0.0.1".into(), false)));
    for bad in ["", "http://", "http://host", "ftp://host:1", "host:port"] {
        assert_eq!(parsed(bad, true), None, "{bad}");
    }
    let no_tls = Endpoint::parse("https://a:1", false).err();
    assert_eq!(no_tls, Some(EndpointError::NoTls("https://a:1".into())));
}
