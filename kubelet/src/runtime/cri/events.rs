//! Hears from the runtime when something becomes of a container, where it tells: containerd does since 1.7.
//!
//! An event says only that it is worth while to look. What a container's state is says the list, so an event that
//! comes late, twice or not at all changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::sleep;
use tonic::{Code, Status};

use super::client::text;
use super::state::Shared;

/// Listens for as long as the runtime's driver lives; ends early if the runtime doesn't know how to tell.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        let ended = listen(&shared).await;
        shared.hears.store(false, Ordering::Relaxed);
        match ended {
            Err(status) if status.code() == Code::Unimplemented => return,
            Err(status) => tracing::debug!(error = %text(&status), "the runtime's events have ended"),
            Ok(()) => {}
        }
        // What was told meanwhile was not heard.
        shared.look.notify_one();
        sleep(shared.pace.retry).await;
    }
}

async fn listen(shared: &Shared) -> Result<(), Status> {
    let mut events = shared.client.events().await?;
    while events.message().await?.is_some() {
        shared.hears.store(true, Ordering::Relaxed);
        shared.look.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::LogLimits;
    use crate::runtime::Runtime;
    use crate::runtime::cri::CriRuntime;
    use crate::runtime::cri::fake_socket::{AGENT, FakeSocket};
    use crate::runtime::cri::state::Pace;

    const NEVER: Duration = Duration::from_secs(1 << 30);
    const SOON: Duration = Duration::from_millis(1);

    async fn connect(socket: &FakeSocket, pace: Pace) -> CriRuntime {
        let agent = AGENT.to_owned();
        let limits = LogLimits::default();
        let connected = CriRuntime::connect_at(pace, &socket.path(), &socket.path(), agent, limits).await;
        connected.expect("it answers")
    }

    #[tokio::test]
    async fn an_end_is_heard_of_where_the_runtime_tells() {
        let socket = FakeSocket::start(true);
        let runtime =
            connect(&socket, Pace { alone: NEVER, beside_events: NEVER, retry: NEVER, ..Pace::default() })
                .await;
        let mut ends = runtime.events().expect("the first reader");
        assert_eq!(runtime.list_containers().await.expect("listed").len(), 1);
        socket.end_container();
        // Nobody looks by himself.
        socket.tell().await;
        assert_eq!(ends.recv().await.expect("an end").exit.code, 3);
    }

    #[tokio::test]
    async fn a_runtime_that_cannot_tell_is_asked_once_and_looked_at() {
        let socket = FakeSocket::start(false);
        let runtime =
            connect(&socket, Pace { alone: SOON, beside_events: NEVER, retry: SOON, ..Pace::default() })
                .await;
        let mut ends = runtime.events().expect("the first reader");
        runtime.list_containers().await.expect("listed");
        socket.when(|calls| calls("GetContainerEvents") == 1 && calls("ListContainers") > 20).await;
        assert_eq!(socket.calls("GetContainerEvents"), 1);
        socket.end_container();
        assert_eq!(ends.recv().await.expect("an end").exit.code, 3);
    }

    #[tokio::test]
    async fn a_runtime_that_stops_telling_is_asked_again() {
        let socket = FakeSocket::start(true);
        let runtime =
            connect(&socket, Pace { alone: NEVER, beside_events: NEVER, retry: SOON, ..Pace::default() })
                .await;
        let mut ends = runtime.events().expect("the first reader");
        runtime.list_containers().await.expect("listed");
        socket.tell().await;
        socket.break_off();
        socket.when(|calls| calls("GetContainerEvents") >= 2).await;
        socket.end_container();
        socket.tell().await;
        assert_eq!(ends.recv().await.expect("an end").exit.code, 3);
    }
}
