//! One signal that tells every part of a process to finish.
//!
//! A [`Trigger`] is held by `main`; each part gets a clone of [`Shutdown`]. A dropped trigger counts as
//! a request, so a part can never wait for an owner that is gone. The signal carries no deadline: who
//! drains, and for how long, is decided by the part that owns the tasks.

use tokio::sync::watch;

/// The side that asks: dropped or [`Trigger::request`]ed, every [`Shutdown`] of the pair resolves.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// The side that is asked; cheap to clone and to hand down.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new pair.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks everybody to finish; asking again changes nothing.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Another handle that is asked through this trigger.
    pub fn subscribe(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }
}

impl Shutdown {
    /// True once somebody asked, or nobody is left who could.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until somebody asks, or nobody is left who could.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means the trigger is gone, which is a request as well.
        let _ = receiver.wait_for(|requested| *requested).await;
    }

    /// The raw signal, for parts that take tokio's own type.
    pub fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}

impl From<watch::Receiver<bool>> for Shutdown {
    fn from(receiver: watch::Receiver<bool>) -> Shutdown {
        Shutdown(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::channel;

    #[tokio::test]
    async fn request_and_drop_both_resolve() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_requested());
        trigger.request();
        shutdown.requested().await;
        assert!(trigger.subscribe().is_requested());

        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
