//! Reading and following a log over rotations, until its container ends.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kubelet::LogLimits;
use kubelet::agent::table::LogTarget;
use kubelet::pod::{PodRef, PodUid};
use kubelet::server::logs::{LogOptions, LogReader};
use kubelet::server::{Query, asker};
use kubelet::shim::log::{LogWriter, Stream};
use tokio::sync::{mpsc, watch};

const LIMITS: LogLimits = LogLimits { max_size: 500, max_files: 5 };

fn pod() -> PodRef {
    PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: PodUid("u1".to_owned()) }
}

fn write(log: &mut LogWriter, numbers: std::ops::Range<u32>) {
    let lines: String = numbers.map(|n| format!("line {n}\n")).collect();
    log.write(Stream::Stdout, lines.as_bytes(), Timestamp::UNIX_EPOCH).expect("write");
}

fn expected(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("line {n}\n")).collect()
}

async fn read(path: &Path, options: LogOptions) -> String {
    let (asker, _queries, _ended) = asker();
    let reader = LogReader::open(path.to_owned(), LIMITS, options, asker, pod(), 0).expect("open");
    let chunks: Vec<_> = reader.stream().collect().await;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.expect("read").to_vec()).collect();
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_log_is_read_over_its_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("main/0.log");
    let mut log = LogWriter::open(&path, LIMITS).expect("open");
    write(&mut log, 0..30);
    assert_eq!(read(&path, LogOptions::default()).await, expected(0..30));
    for lines in [0, 1, 7, 29, 30, 100] {
        let options = LogOptions { tail_lines: Some(u64::from(lines)), ..LogOptions::default() };
        assert_eq!(read(&path, options).await, expected(30u32.saturating_sub(lines)..30), "tail {lines}");
    }
    let missing = dir.path().join("other/0.log");
    assert_eq!(read(&missing, LogOptions::default()).await, "");
}

/// Plays the agent's loop: the run goes on until the channel says otherwise.
async fn agent(mut queries: mpsc::Receiver<Query>, running: watch::Receiver<bool>) {
    while let Some(query) = queries.recv().await {
        if let Query::Log { reply, .. } = query {
            let running = *running.borrow();
            let _ = reply.send(Ok(LogTarget { pod: pod(), current: 0, running, previous: None }));
        }
    }
}

#[tokio::test]
async fn following_misses_nothing_over_rotations_and_ends_with_the_container() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("main/0.log");
    let mut log = LogWriter::open(&path, LIMITS).expect("open");
    let (asker, queries, ended) = asker();
    let (run, running) = watch::channel(true);
    let agent = tokio::spawn(agent(queries, running));
    write(&mut log, 0..5);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let reader = LogReader::open(path, LIMITS, options, asker, pod(), 0).expect("open");
    let mut stream = Box::pin(reader.stream());
    let mut text = String::new();
    let mut next = 5;
    // Writes only once everything before was seen: otherwise old files fall off, as they should.
    loop {
        let chunk = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
        let Some(chunk) = chunk else { break };
        text += std::str::from_utf8(&chunk.expect("read")).expect("text");
        if !text.ends_with(&format!("line {}\n", next - 1)) {
            continue;
        }
        if next < 200 {
            write(&mut log, next..next + 13);
            next += 13;
        } else {
            run.send_replace(false);
            ended.send_modify(|count| *count += 1);
        }
    }
    assert_eq!(text, expected(0..next));
    agent.abort();
}
