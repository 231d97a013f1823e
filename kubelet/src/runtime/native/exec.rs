//! A command run beside a container's process: for probes and lifecycle hooks.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::runtime::{ContainerConfig, EXEC_OUTPUT_LIMIT, ExecOutput, RuntimeError};

/// Runs the command with the container's user, directory and environment.
pub async fn run(
    config: &ContainerConfig,
    command: &[String],
    timeout: Duration,
) -> Result<ExecOutput, RuntimeError> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| RuntimeError::Start("the command is empty".to_owned()))?;
    let mut child = build(config, program, arguments)
        .spawn()
        .map_err(|error| RuntimeError::Start(format!("exec: {program:?}: {error}")))?;
    let waited = tokio::time::timeout(timeout, collect(&mut child)).await;
    match waited {
        Ok(done) => {
            done.map_err(|source| RuntimeError::System { attempted: format!("run {program:?}"), source })
        }
        Err(_) => {
            kill_group(&child);
            Err(RuntimeError::ExecTimeout(timeout))
        }
    }
}

fn build(config: &ContainerConfig, program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOSTNAME", &config.pod.name).envs(&config.env);
    command.current_dir(config.working_dir.as_deref().unwrap_or("/".as_ref()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    config.group.into_iter().for_each(|group| {
        command.gid(group);
    });
    config.user.into_iter().for_each(|user| {
        command.uid(user);
    });
    command
}

/// What a command starts belongs to it: a probe that hangs must leave nothing behind.
fn kill_group(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

async fn collect(child: &mut Child) -> io::Result<ExecOutput> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), limited(stdout), limited(stderr));
    let mut output = out;
    output.extend(err);
    output.truncate(EXEC_OUTPUT_LIMIT);
    Ok(ExecOutput { code: code_of(status?), output })
}

/// Reads up to the limit and lets the rest pass, so that the command never blocks on a full pipe.
async fn limited(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let room = EXEC_OUTPUT_LIMIT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    kept
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}
