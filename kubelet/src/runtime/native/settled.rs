//! What only the runtime knows of a container that is to be made.

use std::io;
use std::path::Path;

use super::sandbox;
use crate::container::Mount;
use crate::pod::ContainerId;
use crate::runtime::ContainerConfig;
use crate::shim::record::Order;

/// The file of the last words, in the run's directory.
const LAST_WORDS: &str = "termination-log";

/// Fills in what only the runtime knows: the cgroup, and where an isolated container's last words are.
pub fn settled(mut config: ContainerConfig, id: &ContainerId, run: &Path) -> ContainerConfig {
    if nix::unistd::geteuid().is_root() && config.isolation.is_some() {
        config.cgroup = config.pod_group.as_ref().map(|pod| pod.container(&id.0));
    }
    if let Some(isolation) = &mut config.isolation {
        let files = sandbox::file_mounts(&isolation.sandbox, &isolation.mounts, isolation.read_only_root);
        isolation.mounts.extend(files);
    }
    if let (Some(isolation), Some(inside)) = (&mut config.isolation, &config.termination_message_path) {
        let outside = run.join(LAST_WORDS);
        isolation.mounts.push(Mount::new(&outside, inside));
        config.termination_message_path = Some(outside);
    }
    config
}

/// Whoever the command is may write its last words.
pub fn last_words_file(order: &Order) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = order.config.termination_message_path.as_ref().filter(|_| order.config.isolation.is_some());
    let Some(path) = path else { return Ok(()) };
    let file = std::fs::File::create(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}
