//! What a pod and an image together say of a container: command, environment, user, rights, limits.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use crate::container::capabilities::Capabilities;
use crate::container::cgroup::Limits;
use crate::container::{Isolation, Mount, Security};
use crate::image::{Image, ImageConfig};
use crate::pod::PodRef;
use crate::pod::admission::{Amounts, amounts, qos_class};
use crate::pod::hostname::hostname;
use crate::pod::sysctls::{self, normalized};
use crate::runtime::{ContainerConfig, PullPolicy};

/// What the node and the runtime know of a container to be isolated.
#[derive(Clone, Debug)]
pub struct Ground<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its file that is held locked.
    pub image_file: std::path::PathBuf,
    /// Where its layers are.
    pub layers_dir: std::path::PathBuf,
    /// What the pod's containers share.
    pub sandbox: std::path::PathBuf,
    /// The cluster's domain.
    pub domain: &'a str,
}

/// Why a container can't be run from an image as its pod is written; `None` if it can.
pub fn refusal(pod: &Pod, container: &Container) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let own = container.security_context.as_ref();
    let shared = spec.security_context.as_ref();
    let profile = own.and_then(|c| c.seccomp_profile.as_ref());
    let profile = profile.or(shared.and_then(|c| c.seccomp_profile.as_ref()));
    let cannot = |what: &str| Some(format!("{what} is not supported by the native runtime"));
    if spec.host_users == Some(false) {
        return cannot("a user namespace (spec.hostUsers: false)");
    }
    if profile.is_some_and(|profile| profile.type_ == "Localhost") {
        return cannot("a seccomp profile of the node's (seccompProfile.type: Localhost)");
    }
    let mut mounts = container.volume_mounts.iter().flatten();
    if mounts.any(|mount| mount.mount_propagation.as_deref() == Some("Bidirectional")) {
        return cannot("mountPropagation: Bidirectional");
    }
    None
}

/// Fills in what the image says and the pod doesn't, and isolates the container.
///
/// # Errors
/// The container's `waiting.message`: what can't be resolved or is against the pod's own policy.
pub fn isolate(
    pod: &Pod,
    container: &Container,
    ground: &Ground<'_>,
    config: ContainerConfig,
    mounts: Vec<Mount>,
) -> Result<ContainerConfig, String> {
    if let Some(name) = sysctls::of_network(pod).filter(|_| config.network.is_none()) {
        return Err(format!(
            "the sysctl {name:?} would be set for the whole machine: the pod has no network of its own"
        ));
    }
    let image = &ground.image.config;
    let (command, args) = command(image, config.command, config.args);
    let mut env = config.env;
    for (name, value) in image.env.iter().filter_map(|entry| entry.split_once('=')) {
        env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let from_image = Some(&image.working_dir).filter(|dir| !dir.is_empty()).map(Into::into);
    let isolation = Isolation { mounts, ..isolation(pod, container, ground)? };
    Ok(ContainerConfig {
        command,
        args,
        env,
        working_dir: config.working_dir.or(from_image),
        stop_signal: signal_number(stop_signal(container).unwrap_or(&image.stop_signal)),
        isolation: Some(Box::new(isolation)),
        ..config
    })
}

/// Upstream's rule: a command replaces entrypoint and arguments of the image, arguments only the latter.
fn command(image: &ImageConfig, command: Vec<String>, args: Vec<String>) -> (Vec<String>, Vec<String>) {
    match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (image.entrypoint.clone(), args),
        (true, true) => (image.entrypoint.clone(), image.cmd.clone()),
    }
}

/// What the pod asks the container to end with, instead of what its image says.
fn stop_signal(container: &Container) -> Option<&str> {
    container.lifecycle.as_ref()?.stop_signal.as_deref().filter(|signal| !signal.is_empty())
}

/// `SIGTERM`, `TERM` or `15`, as images write it.
fn signal_number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let named = name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32);
    named.or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)))
}

fn isolation(pod: &Pod, container: &Container, ground: &Ground<'_>) -> Result<Isolation, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let shared = spec.security_context.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let sysctls = shared.sysctls.iter().flatten().map(|s| (normalized(&s.name), s.value.clone())).collect();
    Ok(Isolation {
        image: ground.image_file.clone(),
        image_id: ground.image.id.to_string(),
        layers_dir: ground.layers_dir.clone(),
        layers: ground.image.layers.clone(),
        sandbox: ground.sandbox.clone(),
        hostname: if host_network { None } else { Some(hostname(pod, ground.domain)?) },
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        joins: None,
        shares_processes: spec.share_process_namespace == Some(true),
        mounts: Vec::new(),
        read_only_root: own.read_only_root_filesystem == Some(true),
        privileged: own.privileged == Some(true),
        unmasked: own.proc_mount.as_deref() == Some("Unmasked"),
        security: security(pod, container, &own, &shared, &ground.image.config)?,
        sysctls,
    })
}

/// Who the command is and what it may do.
///
/// # Errors
/// What is against the pod's own policy, or an unknown capability.
pub fn security(
    pod: &Pod,
    container: &Container,
    own: &SecurityContext,
    shared: &PodSecurityContext,
    image: &ImageConfig,
) -> Result<Security, String> {
    let (uid, gid) = (own.run_as_user.or(shared.run_as_user), own.run_as_group.or(shared.run_as_group));
    if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
        check_not_root(pod, container, uid, &image.user)?;
    }
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref());
    let group = |id: &i64| u32::try_from(*id).ok();
    let groups = shared.supplemental_groups.iter().flatten().chain(&shared.fs_group).filter_map(group);
    Ok(Security {
        user: user(uid, gid, &image.user),
        groups: groups.collect(),
        image_groups: shared.supplemental_groups_policy.as_deref() != Some("Strict"),
        capabilities: Capabilities::wished(
            &capabilities.add.unwrap_or_default(),
            &capabilities.drop.unwrap_or_default(),
        )?,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: profile.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
    })
}

/// The pod's user replaces the image's with its group; the pod's group replaces any.
fn user(uid: Option<i64>, gid: Option<i64>, image: &str) -> String {
    let (image_user, _) = image.split_once(':').unwrap_or((image, ""));
    match (uid, gid) {
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) => format!("{image_user}:{gid}"),
        (None, None) => image.to_owned(),
    }
}

fn check_not_root(pod: &Pod, container: &Container, uid: Option<i64>, image: &str) -> Result<(), String> {
    let whose = format!("(pod: \"{}\", container: {})", PodRef::of(pod), container.name);
    let user = image.split(':').next().unwrap_or_default();
    match (uid, user) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        (Some(_), _) => Ok(()),
        (None, "" | "0") => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
        (None, name) if name.parse::<u32>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root \
             {whose}"
        )),
        (None, _) => Ok(()),
    }
}

/// What the container may use.
pub fn limits(container: &Container) -> Limits {
    let resources = container.resources.clone().unwrap_or_default();
    let part = |part: Option<_>| -> Amounts { part.as_ref().map(amounts).unwrap_or_default() };
    let (requests, limits) = (part(resources.requests), part(resources.limits));
    let amount =
        |of: &Amounts, name: &str| of.get(name).and_then(|n| u64::try_from(*n).ok()).filter(|n| *n > 0);
    let cpu = amount(&limits, "cpu");
    Limits {
        cpu_request: amount(&requests, "cpu").or(cpu).unwrap_or(0),
        cpu,
        memory: amount(&limits, "memory"),
        pids: None,
    }
}

/// Upstream's order of victims: what asks for much memory and is promised it is killed last.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_of_node: i128) -> i32 {
    let spec = pod.spec.as_ref();
    let critical = spec.and_then(|spec| spec.priority).is_some_and(|priority| priority >= 2_000_000_000);
    match qos_class(pod) {
        _ if critical => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let asked = requests.map(amounts).unwrap_or_default().get("memory").copied().unwrap_or(0);
            let score = 1000 - 1000 * asked / memory_of_node.max(1);
            i32::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// When an image is fetched; the API server fills it in for all it admits.
pub fn pull_policy(written: Option<&str>) -> PullPolicy {
    match written {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_and_arguments_replace_the_images_as_upstream() {
        let image =
            ImageConfig { entrypoint: words("/entry a"), cmd: words("b c"), ..ImageConfig::default() };
        for (own, args, want) in [
            ("", "", ("/entry a", "b c")),
            ("", "x", ("/entry a", "x")),
            ("/own", "", ("/own", "")),
            ("/own y", "x", ("/own y", "x")),
        ] {
            assert_eq!(
                command(&image, words(own), words(args)),
                (words(want.0), words(want.1)),
                "{own} {args}"
            );
        }
    }

    #[test]
    fn users_and_groups_of_pod_and_image() {
        for (uid, gid, image, want) in [
            (None, None, "web:www", "web:www"),
            (Some(7), None, "web:www", "7"),
            (Some(7), Some(8), "web", "7:8"),
            (None, Some(8), "web:www", "web:8"),
            (None, None, "", ""),
        ] {
            assert_eq!(user(uid, gid, image), want);
        }
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, want) in
            [("SIGQUIT", Some(3)), ("int", Some(2)), ("15", Some(15)), ("", None), ("99", None)]
        {
            assert_eq!(signal_number(text), want, "{text}");
        }
    }

    fn pod(yaml: &str) -> Pod {
        serde_yaml::from_str(&format!("metadata: {{name: p, namespace: d, uid: u}}\n{yaml}")).expect("a pod")
    }

    #[test]
    fn root_is_refused_where_the_pod_forbids_it() {
        let spec = |user: &str| {
            pod(&format!(
                "spec: {{securityContext: {{runAsNonRoot: true{user}}}, containers: [{{name: c}}]}}"
            ))
        };
        let check = |pod: &Pod, image: &str| {
            let spec = pod.spec.clone().expect("a spec");
            let own = spec.containers[0].security_context.clone().unwrap_or_default();
            let shared = spec.security_context.expect("a context");
            let image = ImageConfig { user: image.to_owned(), ..ImageConfig::default() };
            security(pod, &spec.containers[0], &own, &shared, &image).map(|security| security.user)
        };
        assert_eq!(check(&spec(""), "1000:5"), Ok("1000:5".to_owned()));
        assert_eq!(check(&spec(", runAsUser: 5"), "root"), Ok("5".to_owned()));
        let whose = "(pod: \"p_d(u)\", container: c)";
        for (pod, image, why) in [
            (spec(""), "", "container has runAsNonRoot and image will run as root"),
            (spec(", runAsUser: 0"), "5", "container's runAsUser breaks non-root policy"),
            (
                spec(""),
                "web",
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root",
            ),
        ] {
            assert_eq!(check(&pod, image), Err(format!("{why} {whose}")));
        }
    }

    #[test]
    fn limits_and_scores_follow_the_resources() {
        let pod = pod(
            "spec: {containers: [{name: c, resources: {requests: {cpu: 250m, memory: 1Gi}, limits: {memory: 2Gi}}}]}",
        );
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let want = Limits { cpu_request: 250, cpu: None, memory: Some(2 << 30), pids: None };
        assert_eq!(limits(container), want);
        assert_eq!(oom_score_adj(&pod, container, 4 << 30), 750);
    }
}
