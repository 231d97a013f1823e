//! The membership requests of a [`Store`]: each is a proposal like any other, judged by the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::command::{Command, Outcome};
use crate::kv::{Kv, KvError, MemberId};
use crate::membership::{MemberChange, MemberError, MemberInfo, Refusal};
use crate::store::Store;

/// How long a retry waits while too much else waits.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// The members of the cluster, as far as this one has applied; a linearizable read before makes that
    /// what is newest.
    pub fn members(&self) -> Vec<MemberInfo> {
        self.shared().membership().members().cloned().collect()
    }

    /// The members heard of lately, this one included: on the leader all that are well.
    pub fn healthy(&self) -> BTreeSet<MemberId> {
        self.shared().healthy()
    }

    /// Lets a new member in, which is then to be started with [`Config::join`] and that peer address
    /// (`host:port`). As a learner it gets everything but doesn't vote until it is promoted.
    ///
    /// # Errors
    /// [`MemberError`]; refused among others while a voter isn't heard of, or if the address is taken.
    pub async fn member_add(&self, peer_address: &str, learner: bool) -> Result<MemberInfo, MemberError> {
        loop {
            let id = self.shared().membership().next_id();
            let change = MemberChange::Add { id, peer_address: peer_address.to_owned(), learner };
            match self.change_members(change).await {
                // Somebody else has added one meanwhile; that is applied here now.
                Err(MemberError::Refused(Refusal::IdUsed(_))) => {}
                result => return result,
            }
        }
    }

    /// Lets a learner vote.
    ///
    /// # Errors
    /// [`MemberError`]; refused until it has at least 90 % of the leader's log, and if the voters would
    /// have no active quorum then.
    pub async fn member_promote(&self, id: MemberId) -> Result<MemberInfo, MemberError> {
        self.change_members(MemberChange::Promote(id)).await
    }

    /// Removes a member for ever: it ends itself, and its id is never used again.
    ///
    /// # Errors
    /// [`MemberError`]; refused if the other voters would have no active quorum.
    pub async fn member_remove(&self, id: MemberId) -> Result<MemberInfo, MemberError> {
        self.change_members(MemberChange::Remove(id)).await
    }

    /// Promotes the learner `new` and removes the voter `old` in one step: there is never a voter more or
    /// less than before. Returns the new voter.
    ///
    /// # Errors
    /// [`MemberError`]; refused if the learner isn't ready, or the new voters have no active quorum.
    pub async fn member_replace(&self, old: MemberId, new: MemberId) -> Result<MemberInfo, MemberError> {
        self.change_members(MemberChange::Replace { old, new }).await
    }

    /// Tells the cluster that a member is reached at another peer address (`host:port`) from now on.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn member_update(&self, id: MemberId, peer_address: &str) -> Result<MemberInfo, MemberError> {
        self.change_members(MemberChange::Update { id, peer_address: peer_address.to_owned() }).await
    }

    /// Tells the cluster this member's name and where clients reach it. Tries until it is done.
    ///
    /// # Errors
    /// [`MemberError`] if the cluster refuses, or this member is closed.
    pub async fn publish(&self, name: &str, client_urls: &[String]) -> Result<(), MemberError> {
        let id = self.status().member;
        loop {
            let membership = self.shared().membership();
            let known = membership.get(id);
            if known.is_some_and(|member| member.name == name && member.client_urls == client_urls) {
                return Ok(());
            }
            let change =
                MemberChange::Publish { id, name: name.to_owned(), client_urls: client_urls.to_vec() };
            match self.change_members(change).await {
                Err(MemberError::Store(KvError::Unavailable(_) | KvError::Unknown)) => {}
                Err(MemberError::Store(KvError::Overloaded)) => tokio::time::sleep(OVERLOADED_PAUSE).await,
                result => return result.map(drop),
            }
        }
    }

    /// Returns when the cluster has removed this member; never otherwise. Its store has ended then.
    pub async fn removed(&self) {
        let mut removal = self.shared().removal();
        if removal.wait_for(|removed| *removed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn change_members(&self, change: MemberChange) -> Result<MemberInfo, MemberError> {
        match self.propose(Command::Member(change)).await? {
            Outcome::Member(result) => Ok(result?),
            other => unreachable!("a membership change has a member as its outcome, not {other:?}"),
        }
    }

    /// A member alone may say itself where it is: that is how it gets an address to grow from.
    pub(crate) async fn move_to(&self, address: Option<String>) {
        let Some(address) = address else { return };
        let id = self.status().member;
        let membership = self.shared().membership();
        if membership.get(id).is_some_and(|own| own.peer_address != address)
            && let Err(error) = self.member_update(id, &address).await
        {
            tracing::warn!(%error, "the cluster doesn't know this member's new peer address {address}");
        }
    }
}
