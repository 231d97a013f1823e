//! A stock etcd client for each member, and calls through it as an oracle wants them: one attempt, its times,
//! and an honest outcome.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteResponse, Error, GetOptions, GetResponse, KeyValue,
    PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};

use super::history::{Call, Change, KeyState, Keys, Outcome, Reply, Request, Revision};

/// A call without an answer in this time is given up; whether it was or will be done is unknown then.
pub const ATTEMPT: Duration = Duration::from_secs(2);

/// A connection to each member.
#[derive(Clone)]
pub struct Clients {
    endpoints: Vec<String>,
    clients: Vec<Client>,
}

impl Clients {
    /// To these endpoints. Nothing is sent yet: a member may be down.
    ///
    /// # Panics
    /// If an endpoint is no URL.
    pub async fn connect(endpoints: &[String]) -> Self {
        let mut clients = Vec::new();
        for endpoint in endpoints {
            clients.push(connect(endpoint).await);
        }
        Self { endpoints: endpoints.to_vec(), clients }
    }

    /// A connection of its own, for a reader that is slow: what it doesn't read holds up only itself.
    pub async fn apart(&self, member: usize) -> Client {
        connect(&self.endpoints[member]).await
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// The client of a member.
    pub fn of(&self, member: usize) -> Client {
        self.clients[member].clone()
    }

    /// Asks one member once.
    pub async fn call(&self, client: u64, member: usize, request: Request) -> Call {
        let invoked = Instant::now();
        let answer = tokio::time::timeout(ATTEMPT, ask(self.of(member), &request)).await;
        let outcome = match answer {
            Ok(Ok(reply)) => Outcome::Done(reply),
            Ok(Err(error)) => failure(&error),
            Err(_) => Outcome::Unknown(format!("no answer in {ATTEMPT:?}")),
        };
        Call { client, member, invoked, returned: Instant::now(), request, outcome }
    }
}

async fn connect(endpoint: &str) -> Client {
    let options = ConnectOptions::new().with_timeout(ATTEMPT).with_connect_timeout(ATTEMPT / 2);
    Client::connect([endpoint], Some(options)).await.expect("a valid endpoint")
}

/// What etcd means when it says that something was not done.
fn failure(error: &Error) -> Outcome {
    let text = error.to_string();
    let refused =
        ["database space exceeded", "has been compacted", "is a future revision", "lease not found"];
    if refused.iter().any(|reason| text.contains(reason)) {
        Outcome::Failed(text)
    } else {
        Outcome::Unknown(text)
    }
}

async fn ask(mut client: Client, request: &Request) -> Result<Reply, Error> {
    match request {
        Request::Read { keys, at, serializable } => {
            let answer = client.get(keys.from.as_str(), Some(get_options(keys, *at, *serializable))).await?;
            Ok(Reply::Found { revision: revision(answer.header()), keys: found(&answer) })
        }
        Request::Write { guard: None, changes } => match changes.as_slice() {
            [Change::Put { key, value, lease }] => {
                let options = PutOptions::new().with_lease(*lease);
                let answer = client.put(key.as_str(), padded(value), Some(options)).await?;
                Ok(Reply::Wrote { revision: revision(answer.header()), deleted: 0 })
            }
            [Change::Delete { key }] => {
                let answer = client.delete(key.as_str(), None).await?;
                Ok(Reply::Wrote { revision: revision(answer.header()), deleted: answer.deleted() })
            }
            _ => transact(client, None, changes).await,
        },
        Request::Write { guard: Some((key, at)), changes } => {
            transact(client, Some((key, *at)), changes).await
        }
    }
}

async fn transact(
    mut client: Client,
    guard: Option<(&String, Revision)>,
    changes: &[Change],
) -> Result<Reply, Error> {
    let mut txn = Txn::new();
    if let Some((key, at)) = guard {
        txn = txn.when([Compare::mod_revision(key.as_str(), CompareOp::Equal, at)]);
    }
    txn = txn.and_then(changes.iter().map(operation).collect::<Vec<_>>());
    if let Some((key, _)) = guard {
        txn = txn.or_else([TxnOp::get(key.as_str(), None)]);
    }
    let answer = client.txn(txn).await?;
    let (revision, responses) = (revision(answer.header()), answer.op_responses());
    if answer.succeeded() {
        let deleted = responses.iter().map(|response| match response {
            TxnOpResponse::Delete(answer) => DeleteResponse::deleted(answer),
            _ => 0,
        });
        return Ok(Reply::Wrote { revision, deleted: deleted.sum() });
    }
    let found = responses.iter().find_map(|response| match response {
        TxnOpResponse::Get(answer) => answer.kvs().first().map(state),
        _ => None,
    });
    Ok(Reply::Refused { revision, found })
}

fn operation(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value, lease } => {
            TxnOp::put(key.as_str(), padded(value), Some(PutOptions::new().with_lease(*lease)))
        }
        Change::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}

fn get_options(keys: &Keys, at: Option<Revision>, serializable: bool) -> GetOptions {
    let options = GetOptions::new().with_range(keys.to.as_str()).with_revision(at.unwrap_or(0));
    if serializable { options.with_serializable() } else { options }
}

fn found(answer: &GetResponse) -> BTreeMap<String, KeyState> {
    answer.kvs().iter().map(|kv| (text(kv.key()), state(kv))).collect()
}

/// The revision of a header.
pub fn revision(header: Option<&ResponseHeader>) -> Revision {
    header.expect("etcd's answers have a header").revision()
}

/// A key's content on the wire.
pub fn state(kv: &KeyValue) -> KeyState {
    KeyState {
        value: unpadded(kv.value()),
        created: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

/// The tests' keys and values are text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A value as it is stored: `name~1000` is followed by 1000 dots, so that large values cost the oracles nothing.
fn padded(value: &str) -> String {
    format!("{value}{}", ".".repeat(padding(value)))
}

fn padding(value: &str) -> usize {
    value.rsplit_once('~').map_or(0, |(_, length)| length.parse().expect("a length follows the tilde"))
}

/// The value's name, if its padding is whole; otherwise something that nobody wrote.
fn unpadded(bytes: &[u8]) -> String {
    let stored = text(bytes);
    let name = stored.trim_end_matches('.');
    if padded(name) == stored { name.to_owned() } else { format!("damaged, {} bytes: {name}", stored.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_added_and_checked() {
        assert_eq!(unpadded(padded("c1-2").as_bytes()), "c1-2");
        assert_eq!(unpadded(padded("c1-2~100").as_bytes()), "c1-2~100");
        assert_eq!(unpadded(&padded("c1-2~100").as_bytes()[..50]), "damaged, 50 bytes: c1-2~100");
    }
}
