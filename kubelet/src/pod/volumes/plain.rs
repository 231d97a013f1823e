//! Which mounts a plain process of the host can be given, and what else of a pod it can't honour.
//!
//! It sees the host's files and no others: a `hostPath` mounted where it lies is honoured by doing
//! nothing, the service account's token projection is left out, and everything else is refused by name.

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::pod::volumes::{kind, volume};

/// Where upstream mounts the token that the service account admission adds to each pod.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why the container can't be honoured as a process of the host; `None` if it can.
pub fn refusal(pod: &Pod, container: &Container) -> Option<String> {
    confinement(pod, container).or_else(|| mounts(pod, container))
}

/// What the pod asks to be kept from, and a plain process wouldn't be.
fn confinement(pod: &Pod, container: &Container) -> Option<String> {
    let own = container.security_context.clone().unwrap_or_default();
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let as_root = own.run_as_user.or(shared.run_as_user).is_none_or(|user| user == 0);
    let asked = [
        (own.read_only_root_filesystem == Some(true), "readOnlyRootFilesystem"),
        (
            as_root && own.run_as_non_root.or(shared.run_as_non_root) == Some(true),
            "runAsNonRoot without runAsUser",
        ),
        (pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false)), "hostUsers: false"),
    ];
    let (_, what) = asked.into_iter().find(|(asked, _)| *asked)?;
    let image = container.image.as_deref().unwrap_or_default();
    Some(format!(
        "{what} cannot be honoured: image {image:?} is not on this node, and without it the command would run as a \
         process of the host"
    ))
}

fn mounts(pod: &Pod, container: &Container) -> Option<String> {
    let mounts = container.volume_mounts.iter().flatten();
    let mut refused = mounts.filter(|mount| !is_harmless(pod, mount));
    let mount = refused.next()?;
    let kind = volume(pod, &mount.name).map_or("unknown", kind);
    Some(format!(
        "volume \"{}\" ({kind}) cannot be mounted at {}: the native runtime runs containers as processes of \
         the host without a file system of their own",
        mount.name, mount.mount_path
    ))
}

fn is_harmless(pod: &Pod, mount: &VolumeMount) -> bool {
    let path = mount.mount_path.trim_end_matches('/');
    let host_path = volume(pod, &mount.name).and_then(|volume| volume.host_path.as_ref());
    let lies_there = host_path.is_some_and(|host| host.path.trim_end_matches('/') == path);
    path == TOKEN_PATH || lies_there && mount.sub_path.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_to_be_confined_is_refused() {
        let why = |spec: &str, context: &str| {
            let text = format!(
                "{{spec: {{{spec}containers: [{{name: c, image: i, securityContext: {{{context}}}}}]}}}}"
            );
            let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
            refusal(&pod, &pod.spec.as_ref().expect("a spec").containers[0]).unwrap_or_default()
        };
        for (spec, context, what) in [
            ("", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem cannot"),
            ("", "runAsNonRoot: true", "runAsNonRoot without runAsUser cannot"),
            (
                "securityContext: {runAsNonRoot: true, runAsUser: 0}, ",
                "",
                "runAsNonRoot without runAsUser cannot",
            ),
            ("hostUsers: false, ", "", "hostUsers: false cannot"),
        ] {
            let why = why(spec, context);
            assert!(why.starts_with(what), "{why}");
        }
        assert_eq!(why("", "runAsNonRoot: true, runAsUser: 7"), "");
        assert_eq!(why("hostUsers: true, ", "readOnlyRootFilesystem: false"), "");
    }
}
