//! Where a container sees the volumes of its pod.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::container::Mount;
use crate::pod::expand::expand;
use crate::pod::volumes::{is_made_of_objects, volume};

/// The container's mounts, in the order of their targets' depth, so that one within another comes later.
/// `roots` says where on the host each volume is.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    roots: &BTreeMap<String, PathBuf>,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let mut all = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let root = roots.get(&wanted.name);
        let missing =
            || format!("cannot find volume {:?} to mount into container {:?}", wanted.name, container.name);
        let root = root.ok_or_else(missing)?;
        all.push(mount(pod, wanted, root, env)?);
    }
    all.sort_by_key(|mount| mount.target.components().count());
    Ok(all)
}

fn mount(
    pod: &Pod,
    wanted: &VolumeMount,
    root: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Mount, String> {
    let volume = volume(pod, &wanted.name);
    // What is written by the node is not the container's to change.
    let own = volume.is_some_and(is_made_of_objects);
    let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
    let read_only = own || wanted.read_only == Some(true) || claim.is_some_and(|c| c.read_only == Some(true));
    Ok(Mount {
        sub_path: sub_path(wanted, env)?,
        read_only,
        recursive: matches!(wanted.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        follows_host: wanted.mount_propagation.as_deref() == Some("HostToContainer"),
        devices: volume.is_some_and(|volume| volume.host_path.is_some()),
        ..Mount::new(root, &wanted.mount_path)
    })
}

/// `subPath`, or `subPathExpr` with the container's variables; the errors are upstream's.
fn sub_path(wanted: &VolumeMount, env: &BTreeMap<String, String>) -> Result<Option<PathBuf>, String> {
    let text = match (&wanted.sub_path, &wanted.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(template)) if !template.is_empty() => expanded(template, env)?,
        _ => return Ok(None),
    };
    let path = PathBuf::from(&text);
    if path.is_absolute() {
        return Err(format!("error SubPath `{text}` must not be an absolute path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("unable to provision SubPath `{text}`: must not contain '..'"));
    }
    Ok(Some(path))
}

/// A variable without a value is one that is missing.
fn expanded(template: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let missing = RefCell::new(BTreeSet::new());
    let text = expand(template, |name| {
        let value = env.get(name).filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value.map(String::as_str)
    });
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    if missing.is_empty() { Ok(text) } else { Err(format!("missing value for {}", missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mounts_yaml: &str) -> Result<Vec<Mount>, String> {
        let text = format!(
            "{{spec: {{volumes: [{{name: m, configMap: {{name: m}}}}, {{name: e, emptyDir: {{}}}}, {{name: h, hostPath: \
             {{path: /x}}}}], containers: [{{name: c, volumeMounts: {mounts_yaml}}}]}}}}"
        );
        let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
        let roots = ["m", "e", "h"].map(|name| (name.to_owned(), PathBuf::from("/v").join(name))).into();
        let env = [("NAME", "web"), ("UP", ".."), ("ROOT", "/tmp"), ("EMPTY", "")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        mounts(&pod, &pod.spec.as_ref().expect("a spec").containers[0], &roots, &env)
    }

    #[test]
    fn mounts_follow_their_volumes() {
        let mounts = of("[{name: e, mountPath: /a/b, subPathExpr: logs/$(NAME)}, {name: m, mountPath: /c}, \
                         {name: h, mountPath: /h, readOnly: true, mountPropagation: HostToContainer}]")
        .expect("mounts");
        let [map, host, deep] = mounts.as_slice() else { panic!("{mounts:?}") };
        assert!(map.read_only && !map.devices);
        assert!(host.read_only && host.devices && host.follows_host);
        assert_eq!(deep.sub_path.as_deref(), Some(Path::new("logs/web")));
        assert!(!deep.read_only);
    }

    #[test]
    fn sub_paths_that_lead_out_are_refused() {
        for (mount, why) in [
            ("subPathExpr: $(UP)/etc", "unable to provision SubPath `../etc`: must not contain '..'"),
            ("subPathExpr: $(NONE)/$(EMPTY)", "missing value for EMPTY, NONE"),
            ("subPathExpr: $(ROOT)", "error SubPath `/tmp` must not be an absolute path"),
            ("subPath: /etc", "error SubPath `/etc` must not be an absolute path"),
        ] {
            assert_eq!(of(&format!("[{{name: e, mountPath: /a, {mount}}}]")), Err(why.to_owned()));
        }
        assert_eq!(
            of("[{name: x, mountPath: /a}]"),
            Err("cannot find volume \"x\" to mount into container \"c\"".to_owned())
        );
    }
}
