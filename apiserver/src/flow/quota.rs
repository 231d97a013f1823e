//! What one identity may have open at once, beside the levels: a user with a thousand connections must not fill
//! every queue of a level, nor hold the memory of all watches.

use std::collections::HashMap;
use std::sync::Arc;

use api::status::Status;
use parking_lot::Mutex;

/// Which count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Requests that are answered once.
    Requests,
    /// Watches and other requests that stay open.
    Watches,
}

/// Counts what is open by user. Users without anything open take no memory.
#[derive(Debug)]
pub struct Quotas {
    open: Mutex<HashMap<String, [usize; 2]>>,
    limits: [usize; 2],
}

/// Something open; counted until it is dropped.
#[derive(Debug)]
pub struct Open {
    quotas: Arc<Quotas>,
    user: String,
    what: What,
}

impl Quotas {
    /// At most so many requests and watches for each user.
    pub fn new(requests: usize, watches: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), limits: [requests, watches] })
    }

    /// Counts one more of the user.
    ///
    /// # Errors
    /// 429 if the user has as many as one may have.
    pub fn open(self: &Arc<Self>, user: &str, what: What) -> Result<Open, Status> {
        let limit = self.limits[what as usize];
        let mut open = self.open.lock();
        let count = &mut open.entry(user.to_owned()).or_default()[what as usize];
        if *count >= limit {
            let name = if what == What::Requests { "requests" } else { "watches" };
            let text = format!("user {user:?} has {limit} {name} open, which is the limit for one user");
            return Err(Status::too_many_requests(text, 1));
        }
        *count += 1;
        Ok(Open { quotas: self.clone(), user: user.to_owned(), what })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.quotas.open.lock();
        let Some(counts) = open.get_mut(&self.user) else { return };
        counts[self.what as usize] -= 1;
        if *counts == [0, 0] {
            open.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_a_limit_and_leaves_nothing_behind() {
        let quotas = Quotas::new(2, 1);
        let held = [What::Requests, What::Requests, What::Watches].map(|what| quotas.open("jane", what));
        assert!(held.iter().all(Result::is_ok));
        for what in [What::Requests, What::Watches] {
            assert_eq!(quotas.open("jane", what).map_err(|status| status.code()).err(), Some(429));
        }
        assert!(quotas.open("joe", What::Watches).is_ok(), "another user has limits of his own");
        drop(held);
        assert!(quotas.open.lock().is_empty());
    }
}
