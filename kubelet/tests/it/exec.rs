//! Talking to commands and ports beside a container.

use std::time::Duration;

use kubelet::LogLimits;
use kubelet::pod::{ContainerId, PodRef, PodUid};
use kubelet::runtime::native::NativeRuntime;
use kubelet::runtime::{Runtime, Session, Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::native::{PATIENCE, end, runtime, shell, start};

const PIPES: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };

async fn exec(runtime: &NativeRuntime, id: &ContainerId, script: &str, streams: Streams) -> Session {
    let command = ["sh", "-c", script].map(str::to_owned);
    runtime.exec(id, &command, streams).await.expect("exec")
}

/// Types the input, closes it, and waits for the end: exit code, output and errors.
async fn converse(session: Session, input: &[u8]) -> (i32, String, String) {
    let Session { stdin, stdout, stderr, end, resize: _resize } = session;
    let feeding = async {
        let mut stdin = stdin.expect("asked for");
        stdin.write_all(input).await.expect("write");
        stdin.shutdown().await.expect("close");
    };
    let reading = |from: Option<kubelet::runtime::Output>| async {
        let mut text = String::new();
        if let Some(mut from) = from {
            from.read_to_string(&mut text).await.expect("read");
        }
        text
    };
    let all = async { tokio::join!(feeding, reading(stdout), reading(stderr), end) };
    let ((), out, err, code) = tokio::time::timeout(PATIENCE, all).await.expect("in time");
    (code.expect("an end"), out, err)
}

#[tokio::test]
async fn a_command_reads_writes_and_ends_with_its_code() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, shell(0, "exec sleep 1000")).await;
    let session = exec(&runtime, &id, "echo $GREETING; cat; echo oops >&2; exit 42", PIPES).await;
    let (code, out, err) = converse(session, b"typed").await;
    assert_eq!((code, out.as_str(), err.as_str()), (42, "hello\ntyped", "oops\n"));
    let missing = runtime.exec(&id, &["no-such-program".to_owned()], PIPES).await.expect_err("missing");
    assert_eq!(missing.chain(), "exec: \"no-such-program\": executable file not found in $PATH");
    runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    end(&mut events).await;
    let late = runtime.exec(&id, &["true".to_owned()], PIPES).await.expect_err("ended");
    assert!(late.chain().contains("container"), "{}", late.chain());
}

#[tokio::test]
async fn a_terminal_has_a_size_and_takes_what_is_typed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, _events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, shell(0, "exec sleep 1000")).await;
    let script = "read line; tty >/dev/null && stty size && echo $TERM got $line; exit 3";
    let session = exec(&runtime, &id, script, TERMINAL).await;
    session.resize.send(TerminalSize { width: 132, height: 43 }).await.expect("a new size");
    // Only once the size is set may the script go on to look at it.
    let Session { stdin, stdout, stderr, mut end, resize } = session;
    while resize.capacity() < resize.max_capacity() {
        assert!(futures::poll!(&mut end).is_pending());
    }
    assert!(stderr.is_none(), "a terminal has one output");
    let session = Session { stdin, stdout, stderr, end, resize };
    let (code, out, _) = converse(session, b"hi\n").await;
    assert_eq!(code, 3);
    assert!(out.contains("43 132\r\nxterm got hi\r\n"), "{out:?}");
    runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
}

#[tokio::test]
async fn a_command_ends_with_its_container_and_with_its_client() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, shell(0, "exec sleep 1000")).await;
    let mut abandoned = exec(&runtime, &id, "echo $$; exec sleep 1000", PIPES).await;
    let mut pid = [0; 16];
    let read = abandoned.stdout.as_mut().expect("asked for").read(&mut pid).await.expect("read");
    let pid = std::str::from_utf8(&pid[..read]).expect("text").trim().to_owned();
    drop(abandoned);
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(std::time::Instant::now() < deadline, "{pid} goes on without a client");
        tokio::task::yield_now().await;
    }
    let session = exec(&runtime, &id, "exec sleep 1000", PIPES).await;
    runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    end(&mut events).await;
    let (code, ..) = converse(session, b"").await;
    assert_eq!(code, 137);
}

#[tokio::test]
async fn a_port_of_the_pod_is_reached() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, _events) = runtime(dir.path(), LogLimits::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("address").port();
    let pod = PodRef { namespace: "a".to_owned(), name: "web".to_owned(), uid: PodUid("u1".to_owned()) };
    let mut stream = runtime.port_forward(&pod, port).await.expect("connect");
    let (mut served, _) = listener.accept().await.expect("accept");
    served.write_all(b"hi").await.expect("write");
    drop((served, listener));
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "hi");
    assert!(runtime.port_forward(&pod, port).await.is_err(), "nobody listens any more");
}

fn typing(script: &str, tty: bool) -> kubelet::runtime::ContainerConfig {
    kubelet::runtime::ContainerConfig { stdin: true, stdin_once: true, tty, ..shell(0, script) }
}

#[tokio::test]
async fn who_attaches_types_and_hears_and_the_log_hears_too() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, typing("cat; echo over >&2; exit 7", false)).await;
    let session = runtime.attach(&id, PIPES).await.expect("attach");
    let long = "0123456789abcdef\n".repeat(20_000);
    let (code, out, err) = converse(session, long.as_bytes()).await;
    assert_eq!((code, out.len(), err.as_str()), (0, long.len(), "over\n"));
    assert_eq!(end(&mut events).await.code, 7);
    let pod =
        PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: PodUid("u1".to_owned()) };
    let main = kubelet::pod::ContainerName("main".to_owned());
    let log = kubelet::runtime::native::log_path(dir.path(), &pod, &main, 0);
    assert!(std::fs::read_to_string(log).expect("log").lines().count() > 20_000);
    assert!(runtime.attach(&id, PIPES).await.is_err(), "it has ended");
}

#[tokio::test]
async fn a_container_with_a_terminal_keeps_it_for_those_who_come_and_go() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(
        &runtime,
        typing("while read line; do stty size; echo $TERM got $line; [ $line != bye ] || exit 3; done", true),
    )
    .await;
    for (width, word) in [(100, "hi"), (120, "bye")] {
        let mut session = runtime.attach(&id, TERMINAL).await.expect("attach");
        session.resize.send(TerminalSize { width, height: 43 }).await.expect("a new size");
        while session.resize.capacity() < session.resize.max_capacity() {
            assert!(futures::poll!(&mut session.end).is_pending());
        }
        let Session { stdin, stdout, end, .. } = &mut session;
        let (stdin, stdout) = (stdin.as_mut().expect("typed"), stdout.as_mut().expect("heard"));
        let conversation = async {
            stdin.write_all(format!("{word}\n").as_bytes()).await.expect("type");
            let (mut heard, wanted) = (String::new(), format!("43 {width}\r\nxterm got {word}\r\n"));
            while !heard.contains(&wanted) {
                let mut piece = [0; 256];
                let read = stdout.read(&mut piece).await.expect("read");
                assert!(read > 0, "{heard:?}");
                heard += std::str::from_utf8(&piece[..read]).expect("text");
            }
        };
        // The session's end moves the bytes, and comes only with the container's.
        let both = async {
            tokio::select! {
                () = conversation => {}
                _ = async { end.await.expect("in order"); std::future::pending::<()>().await } => {}
            }
        };
        tokio::time::timeout(PATIENCE, both).await.expect("in time");
    }
    assert_eq!(end(&mut events).await.code, 3);
}
