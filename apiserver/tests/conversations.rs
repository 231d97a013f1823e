//! Conversations with the API server: what is asked and what is answered, in `testdata/conversations/`.
//!
//! Each file is one server over an empty store. Steps are separated by blank lines; a step is a request
//! line, headers, a body, and behind `----` the answer. `UPDATE=1` rewrites the answers.
//!
//! ```text
//! POST /api/v1/namespaces/default/configmaps      a request
//! show /metadata/name /data                       only these parts of the answer
//! WATCH w /api/v1/configmaps?resourceVersion={0}  begins a watch named w
//! READ w 2                                        its next two events ("end": all to the end)
//! COMPACT                                         forgets the store's history
//! ESTABLISHED crontabs.example.com                waits until a definition is served
//! JUDGED crontabs.example.com                     waits until its names are accepted or not
//! GONE /apis/example.com/v1/crontabs/a            waits until there is nothing
//! AS jane dev                                     the user and groups of the requests that follow
//! ```
//! What differs from run to run is written in another way: uids and times as UID and TIME, revisions as
//! `{N}`, counted from the server's start, in requests too; `{continue}` is the last continue token, `{token}` the
//! last service-account token. A request with an Authorization header comes from nobody but whom it shows.

mod conversation;

use std::fs;
use std::path::{Path, PathBuf};

use conversation::Conversation;

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/conversations");
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("directory entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no conversations in {}", dir.display());
    files
}

async fn transcript(text: &str) -> String {
    let mut conversation = Conversation::start().await;
    let mut transcript = String::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let step = block.split("\n----").next().unwrap_or_default().trim_matches('\n');
        transcript.push_str(step);
        if step.lines().any(|line| !line.starts_with('#')) {
            transcript.push_str(&format!("\n----\n{}", conversation.take(step).await.trim_end()));
        }
        transcript.push_str("\n\n");
    }
    format!("{}\n", transcript.trim_end())
}

#[tokio::test]
async fn conversations() {
    for file in files() {
        let expected = fs::read_to_string(&file).expect("read the conversation");
        let actual = transcript(&expected).await;
        if std::env::var_os("UPDATE").is_some_and(|value| !value.is_empty()) {
            fs::write(&file, &actual).expect("write the conversation");
            continue;
        }
        let name = file.display();
        for (number, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
            assert_eq!(actual, expected, "{name}:{} (UPDATE=1 rewrites it)", number + 1);
        }
        assert_eq!(actual.lines().count(), expected.lines().count(), "{name} (UPDATE=1 rewrites it)");
    }
}

/// A `kube::Client` over the server itself: what the controllers of a member use.
#[tokio::test]
async fn a_client_in_the_process_needs_no_socket() {
    use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
    let conversation = Conversation::start().await;
    let client = kube::Client::new(conversation.in_process(), "default");
    let config_maps: Api<api::k8s::api::core::v1::ConfigMap> = Api::default_namespaced(client);
    let events = config_maps.watch(&WatchParams::default(), "0").await.expect("a watch");
    let mut events = std::pin::pin!(events);
    let named = serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}})).expect("typed");
    config_maps.create(&PostParams::default(), &named).await.expect("created");
    let first = futures::TryStreamExt::try_next(&mut events).await.expect("an event").expect("not the end");
    assert!(matches!(first, WatchEvent::Added(added) if added.metadata.name.as_deref() == Some("a")));
    let list = config_maps.list(&ListParams::default()).await.expect("a list");
    assert_eq!(list.items.len(), 1);
    let twice = config_maps.create(&PostParams::default(), &named).await.expect_err("it exists");
    assert!(matches!(twice, kube::Error::Api(status) if status.code == 409), "typed errors come through");
}
