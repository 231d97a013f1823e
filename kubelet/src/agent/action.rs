//! Performs the actions of probes and hooks: commands, pages, connections.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::agent::{grpc, http_get};
use crate::pod::ContainerId;
use crate::pod::effect::ProbeOutcome;
use crate::pod::handler::Action;
use crate::runtime::{Runtime, RuntimeError};

/// Probes once.
pub async fn probe(
    runtime: &dyn Runtime,
    id: &ContainerId,
    action: &Action,
    timeout: Duration,
) -> ProbeOutcome {
    match action {
        Action::Http(get) => http_get::probe(get, timeout).await,
        Action::Exec(command) => match exec(runtime, id, command, timeout).await {
            Ok(()) => ProbeOutcome::Success,
            Err(Unwell::Failed(why)) => ProbeOutcome::Failure(why),
            Err(Unwell::NotRun(why)) => ProbeOutcome::Error(why),
        },
        other => match perform(runtime, id, other, timeout).await {
            Ok(()) => ProbeOutcome::Success,
            Err(why) => ProbeOutcome::Failure(why),
        },
    }
}

/// Performs the action of a hook; the error says what went wrong.
pub async fn perform(
    runtime: &dyn Runtime,
    id: &ContainerId,
    action: &Action,
    timeout: Duration,
) -> Result<(), String> {
    match action {
        Action::Exec(command) => exec(runtime, id, command, timeout).await.map_err(Unwell::message),
        Action::Http(get) => http_get::call(get, timeout).await,
        Action::Tcp { host, port } => {
            let late = || format!("dial tcp {host}:{port}: i/o timeout");
            tokio::time::timeout(timeout, dial(host, *port)).await.map_err(|_| late())?.map(drop)
        }
        Action::Grpc { host, port, service } => grpc::check(host, *port, service, timeout).await,
        Action::Sleep(time) => {
            tokio::time::sleep((*time).min(timeout)).await;
            Ok(())
        }
    }
}

/// How a command didn't end well.
enum Unwell {
    /// It said so, or took too long.
    Failed(String),
    /// It could not be run, which says nothing of the container.
    NotRun(String),
}

impl Unwell {
    fn message(self) -> String {
        let (Self::Failed(message) | Self::NotRun(message)) = self;
        message
    }
}

async fn exec(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Result<(), Unwell> {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(done) if done.code == 0 => Ok(()),
        Ok(done) => Err(Unwell::Failed(String::from_utf8_lossy(&done.output).trim_end().to_owned())),
        Err(RuntimeError::ExecTimeout(_)) => {
            let program = command.join(" ");
            let why = format!("command timed out: {program:?} timed out after {}s", timeout.as_secs());
            Err(Unwell::Failed(why))
        }
        Err(error) => Err(Unwell::NotRun(error.chain())),
    }
}

/// Opens a connection; the error is as Go has it.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {}", plain(&error)))
}

/// The system's own words, without a number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::runtime::fake::{FakeRuntime, FakeScript};

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn probed(action: &Action) -> ProbeOutcome {
        let runtime = FakeRuntime::new(FakeScript::default());
        probe(&runtime, &ContainerId("none".to_owned()), action, PATIENCE).await
    }

    #[tokio::test]
    async fn a_port_that_nobody_has_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let tcp = Action::Tcp { host: "127.0.0.1".to_owned(), port };
        assert_eq!(probed(&tcp).await, ProbeOutcome::Success);
        drop(listener);
        let why = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(probed(&tcp).await, ProbeOutcome::Failure(why));
    }

    #[tokio::test]
    async fn a_command_that_can_not_be_run_says_nothing_of_the_container() {
        let outcome = probed(&Action::Exec(vec!["true".to_owned()])).await;
        assert!(matches!(outcome, ProbeOutcome::Error(_)), "{outcome:?}");
    }
}
