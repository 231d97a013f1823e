//! The queues to other members, and the tasks that empty them: they come and go with the membership.
//!
//! A link belongs to one peer at one address. When the membership drops the peer or moves it, the queue is
//! closed; its task still sends what is in it, as the news of a removal may be among that, and ends.

use std::collections::BTreeMap;

use raft::eraftpb::{Message, MessageType};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{PeerContext, sender, stopped};
use crate::kv::MemberId;
use crate::membership::Membership;
use crate::raft::replica::Input;

/// Messages waiting for one peer. When full, more are dropped and the peer counts as unreachable.
const PEER_QUEUE: usize = 1024;
/// New links waiting for their tasks. When full, the store's thread waits, briefly: nothing but this empties
/// it.
const NEW_LINKS: usize = 16;
/// Callers that the membership doesn't know (yet) who are answered, at most.
const MAX_STRANGERS: usize = 8;

/// A queue for the messages to one peer.
pub struct Link {
    /// Which peer.
    pub peer: MemberId,
    /// Where it is, `host:port`.
    pub address: String,
    /// What to send.
    pub queue: Receiver<Message>,
}

struct Queue {
    address: String,
    messages: Sender<Message>,
    /// Not in the membership as far as applied here, but it calls as a member of this cluster.
    stranger: bool,
}

/// Where the driver puts messages.
pub struct Outbox {
    own: MemberId,
    queues: BTreeMap<MemberId, Queue>,
    failures: Vec<Input>,
    links: Sender<Link>,
}

/// An outbox, and where its links come out.
pub fn outbox(own: MemberId) -> (Outbox, Receiver<Link>) {
    let (links, new_links) = mpsc::channel(NEW_LINKS);
    (Outbox { own, queues: BTreeMap::new(), failures: Vec::new(), links }, new_links)
}

impl Outbox {
    /// Follows the membership: each other member has one queue, to its present address. Blocks only until
    /// the links' task has taken the new ones.
    pub fn set_members(&mut self, membership: &Membership) {
        if membership.is_empty() {
            return;
        }
        self.queues.retain(|id, queue| match membership.get(*id) {
            Some(member) => member.peer_address == queue.address,
            None => queue.stranger && !membership.was_removed(*id),
        });
        for member in membership.members() {
            self.open(member.id, &member.peer_address, false);
        }
    }

    /// A caller of this cluster whom the membership here doesn't know yet: its answers need a way back.
    pub fn answer(&mut self, id: MemberId, address: &str) {
        if self.queues.values().filter(|queue| queue.stranger).count() < MAX_STRANGERS {
            self.open(id, address, true);
        }
    }

    fn open(&mut self, peer: MemberId, address: &str, stranger: bool) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.stranger &= stranger;
            return;
        }
        if address.is_empty() || peer == self.own {
            return;
        }
        let (messages, queue) = mpsc::channel(PEER_QUEUE);
        let link = Link { peer, address: address.to_owned(), queue };
        // If the links' task is gone, the store is ending.
        if self.links.blocking_send(link).is_ok() {
            self.queues.insert(peer, Queue { address: address.to_owned(), messages, stranger });
        }
    }

    /// Puts a message into its queue, or drops it.
    pub fn send(&mut self, message: Message) {
        let to = MemberId(message.to);
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let sent = self.queues.get(&to).is_some_and(|queue| queue.messages.try_send(message).is_ok());
        if !sent {
            self.failures.push(Input::Unreachable(to));
            if is_snapshot {
                self.failures.push(Input::SnapshotSent(to, false));
            }
        }
    }

    /// What couldn't be sent since the last call.
    pub fn take_failures(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.failures)
    }

    /// Ends the queues.
    pub fn close(&mut self) {
        self.queues.clear();
    }
}

/// Gives each new link a task, until the store shuts down.
pub async fn run(context: PeerContext, mut links: Receiver<Link>, mut stop: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    let inner_stop = stop.clone();
    let spawn_all = async {
        while let Some(link) = links.recv().await {
            tasks.spawn(sender::run(context.clone(), link, inner_stop.clone()));
            while tasks.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = spawn_all => {}
        () = stopped(&mut stop) => {}
    }
    while tasks.join_next().await.is_some() {}
}
