//! What a runtime is asked for when a container is made: a value of the pod, its image and the container's
//! configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

use super::proto::{self, MountPropagation, NamespaceMode, security_profile::ProfileType};
use super::sandbox::{labels, namespaces, profile};
use crate::container::Mount;
use crate::container::cgroup::Limits;
use crate::container::root;
use crate::image::ImageConfig;
use crate::pod::roles::spec_of;
use crate::pod::{ContainerId, isolation};
use crate::runtime::{Asked, ContainerConfig};

/// Upstream's label for a container's name in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Upstream's annotation that says whether the end of the log is the last word.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Its value where it is.
pub const FROM_LOGS: &str = "FallbackToLogsOnError";
/// Between two looks of the kernel at what a group has used, in microseconds.
const CPU_PERIOD: i64 = 100_000;
/// The least that the kernel takes as a quota, in microseconds.
const LEAST_QUOTA: i64 = 1_000;
/// The least that the kernel takes as a share.
const LEAST_SHARES: i64 = 2;

/// What lies on the host for one run.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// Where its last words go.
    pub last_words: PathBuf,
    /// The log, below the sandbox's directory of logs.
    pub log: String,
}

/// The whole order. `mounts` have their parts looked up already; `target` is the container whose processes this
/// one sees.
///
/// # Errors
/// The container's `waiting.message`: what is against the pod's own policy.
pub fn order(
    config: &ContainerConfig,
    asked: &Asked,
    mounts: &[Mount],
    files: &RunFiles,
    target: Option<ContainerId>,
    agent: &str,
) -> Result<proto::ContainerConfig, String> {
    let spec = asked.pod.spec.clone().unwrap_or_default();
    let container = spec_of(&asked.pod, &config.container).map(Cow::into_owned).unwrap_or_default();
    let mut labels = labels(agent, &config.pod);
    labels.insert(CONTAINER_NAME.to_owned(), config.container.0.clone());
    let policy = if config.termination_message_from_logs { FROM_LOGS } else { "File" };
    Ok(proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata {
            name: config.container.0.clone(),
            attempt: config.attempt,
        }),
        image: Some(proto::ImageSpec { image: asked.image.id.to_string() }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default(),
        envs: config.env.iter().map(variable).collect(),
        mounts: all_mounts(config, mounts, files),
        labels,
        annotations: BTreeMap::from([(MESSAGE_POLICY.to_owned(), policy.to_owned())]),
        log_path: files.log.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(resources(&config.limits, config.oom_score_adj)),
            security_context: Some(security(asked, &spec, &container, target)?),
        }),
    })
}

fn variable((key, value): (&String, &String)) -> proto::KeyValue {
    proto::KeyValue { key: key.clone(), value: value.clone() }
}

/// The volumes', and the two files that upstream mounts; what the pod mounts there itself stays.
fn all_mounts(config: &ContainerConfig, mounts: &[Mount], files: &RunFiles) -> Vec<proto::Mount> {
    let taken = |path: &Path| mounts.iter().any(|mount| mount.target == path);
    let last_words = config.termination_message_path.as_ref().map(|inside| (&files.last_words, &**inside));
    let own = [Some((&files.hosts, Path::new("/etc/hosts"))), last_words];
    let own = own.into_iter().flatten().filter(|(_, inside)| !taken(inside));
    let own: Vec<Mount> = own.map(|(outside, inside)| Mount::new(outside, inside)).collect();
    mounts.iter().chain(&own).map(mount).collect()
}

fn mount(mount: &Mount) -> proto::Mount {
    let propagation = match mount.follows_host {
        true => MountPropagation::PropagationHostToContainer,
        false => MountPropagation::PropagationPrivate,
    };
    let shown = proto::Mount {
        container_path: mount.target.display().to_string(),
        host_path: mount.source.display().to_string(),
        readonly: mount.read_only,
        propagation: propagation.into(),
        recursive_read_only: mount.read_only && mount.recursive,
        ..proto::Mount::default()
    };
    let Some(image) = &mount.image else { return shown };
    let part = mount.sub_path.as_ref().map(|part| part.display().to_string());
    proto::Mount {
        host_path: String::new(),
        image: Some(proto::ImageSpec { image: image.id.clone() }),
        image_sub_path: part.unwrap_or_default(),
        ..shown
    }
}

/// As the kernel counts them: shares of 1024 a core, and a quota of each period.
pub fn resources(limits: &Limits, oom_score_adj: i32) -> proto::LinuxContainerResources {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let quota = limits.cpu.map(|milli| (number(milli) * CPU_PERIOD / 1000).max(LEAST_QUOTA));
    proto::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: quota.unwrap_or(0),
        cpu_shares: (number(limits.cpu_request) * 1024 / 1000).max(LEAST_SHARES),
        memory_limit_in_bytes: limits.memory.map_or(0, number),
        oom_score_adj: oom_score_adj.into(),
    }
}

fn security(
    asked: &Asked,
    spec: &PodSpec,
    container: &Container,
    target: Option<ContainerId>,
) -> Result<proto::LinuxContainerSecurityContext, String> {
    let own = container.security_context.clone().unwrap_or_default();
    let shared = spec.security_context.clone().unwrap_or_default();
    let image = &asked.image.config;
    let checked = isolation::security(&asked.pod, container, &own, &shared, image)?;
    let hides = own.privileged != Some(true) && own.proc_mount.as_deref() != Some("Unmasked");
    let paths = |paths: &[&str]| paths.iter().filter(|_| hides).map(|path| format!("/{path}")).collect();
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let group = own.run_as_group.or(shared.run_as_group);
    let (uid, name) = user(own.run_as_user.or(shared.run_as_user), group, image);
    Ok(proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
        }),
        privileged: own.privileged == Some(true),
        namespace_options: Some(beside(target, namespaces(spec))),
        run_as_user: uid.map(|value| proto::Int64Value { value }),
        run_as_username: name,
        run_as_group: group.map(|value| proto::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: checked.groups.into_iter().map(i64::from).collect(),
        no_new_privs: checked.no_new_privileges,
        masked_paths: paths(&root::MASKED),
        readonly_paths: paths(&root::READ_ONLY),
        seccomp: Some(seccomp(&own, spec)),
    })
}

/// A container that looks at another one's processes has that one's.
fn beside(target: Option<ContainerId>, own: proto::NamespaceOption) -> proto::NamespaceOption {
    match target {
        Some(id) => proto::NamespaceOption { pid: NamespaceMode::Target.into(), target_id: id.0, ..own },
        None => own,
    }
}

/// By number or by the name that the image's files know; a group alone needs a user beside it.
fn user(uid: Option<i64>, group: Option<i64>, image: &ImageConfig) -> (Option<i64>, String) {
    let of_image = image.user.split(':').next().unwrap_or_default();
    match (uid, of_image.parse()) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, Ok(uid)) => (Some(uid), String::new()),
        (None, Err(_)) if of_image.is_empty() => (group.map(|_| 0), String::new()),
        (None, Err(_)) => (None, of_image.to_owned()),
    }
}

fn seccomp(own: &SecurityContext, spec: &PodSpec) -> proto::SecurityProfile {
    let shared = spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let wanted = own.seccomp_profile.as_ref().or(shared);
    match wanted.map(|wanted| wanted.type_.as_str()) {
        Some("RuntimeDefault") => profile(ProfileType::RuntimeDefault),
        Some("Localhost") => proto::SecurityProfile {
            localhost_ref: wanted.and_then(|wanted| wanted.localhost_profile.clone()).unwrap_or_default(),
            ..profile(ProfileType::Localhost)
        },
        _ => profile(ProfileType::Unconfined),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::container::MountedImage;
    use crate::image::{Digest, Image};
    use crate::pod::{ContainerName, PodRef};

    fn of(container: &str, image_user: &str) -> Result<proto::ContainerConfig, String> {
        let text = format!(
            "{{metadata: {{name: web, namespace: shop, uid: u}}, spec: {{containers: [{{name: a, {container}}}]}}}}"
        );
        let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
        let image = Image {
            id: Digest::of(b"image"),
            names: Vec::new(),
            config: ImageConfig { user: image_user.to_owned(), ..ImageConfig::default() },
            layers: Vec::new(),
            size: 1,
            added: Timestamp::UNIX_EPOCH,
        };
        let spec = pod.spec.as_ref().expect("a spec").containers[0].clone();
        let config = ContainerConfig {
            pod: PodRef::of(&pod),
            container: ContainerName("a".to_owned()),
            attempt: 2,
            termination_message_path: Some("/dev/termination-log".into()),
            termination_message_from_logs: true,
            limits: isolation::limits(&spec),
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            ..ContainerConfig::default()
        };
        let asked = Asked { pod: Arc::new(pod), image: Box::new(image), mounts: Vec::new() };
        let data = MountedImage { id: "sha256:1".to_owned(), file: "/c".into(), layers: Vec::new() };
        let volume = Mount { read_only: true, ..Mount::new("/volumes/v", "/v") };
        let shown = Mount { image: Some(data), sub_path: Some("a/b".into()), ..volume.clone() };
        let mounts = [volume, Mount { target: "/i".into(), ..shown }];
        let files =
            RunFiles { hosts: "/h/hosts".into(), last_words: "/h/words".into(), log: "a/2.log".to_owned() };
        order(&config, &asked, &mounts, &files, None, "me")
    }

    #[test]
    fn a_container_is_asked_for_with_all_it_needs() {
        let order =
            of("resources: {requests: {cpu: 250m}, limits: {cpu: 500m, memory: 1Mi}}", "").expect("an order");
        let image =
            |m: &proto::Mount| m.image.as_ref().map(|image| format!("{}/{}", image.image, m.image_sub_path));
        let source = |m: &proto::Mount| image(m).unwrap_or(m.host_path.clone());
        let shown = |m: &proto::Mount| format!("{}:{}:{}", source(m), m.container_path, m.readonly);
        let want = [
            "/volumes/v:/v:true",
            "sha256:1/a/b:/i:true",
            "/h/hosts:/etc/hosts:false",
            "/h/words:/dev/termination-log:false",
        ];
        assert_eq!(order.mounts.iter().map(shown).collect::<Vec<_>>(), want);
        assert_eq!(order.mounts[1].host_path, "", "an image and a path of the host exclude each other");
        assert_eq!(order.labels[CONTAINER_NAME], "a");
        assert_eq!(order.annotations[MESSAGE_POLICY], FROM_LOGS);
        assert_eq!((order.log_path.as_str(), order.metadata.expect("metadata").attempt), ("a/2.log", 2));
        let linux = order.linux.expect("linux");
        let resources = linux.resources.expect("resources");
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 256));
        assert_eq!(resources.memory_limit_in_bytes, 1 << 20);
        let security = linux.security_context.expect("a context");
        assert!(security.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert_eq!(security.seccomp.expect("a profile").profile_type(), ProfileType::Unconfined);
    }

    #[test]
    fn users_come_from_the_pod_or_the_image() {
        let who = |context: &str, image: &str| {
            let order = of(&format!("securityContext: {{{context}}}"), image).expect("an order");
            let security = order.linux.expect("linux").security_context.expect("a context");
            (
                security.run_as_user.map(|n| n.value),
                security.run_as_username,
                security.run_as_group.map(|n| n.value),
            )
        };
        assert_eq!(who("", ""), (None, String::new(), None));
        assert_eq!(who("", "web:www"), (None, "web".to_owned(), None));
        assert_eq!(who("runAsUser: 7", "web"), (Some(7), String::new(), None));
        assert_eq!(who("runAsGroup: 8", ""), (Some(0), String::new(), Some(8)));
        assert_eq!(who("runAsGroup: 8", "5:6"), (Some(5), String::new(), Some(8)));
    }

    #[test]
    fn what_is_against_the_pods_policy_is_refused_and_the_privileged_see_all() {
        let refused = of("securityContext: {runAsNonRoot: true}", "").expect_err("root");
        assert!(refused.starts_with("container has runAsNonRoot and image will run as root"), "{refused}");
        let order = of("securityContext: {privileged: true}", "").expect("an order");
        let security = order.linux.expect("linux").security_context.expect("a context");
        assert!(
            security.privileged && security.masked_paths.is_empty() && security.readonly_paths.is_empty()
        );
    }
}
