//! Where a container sees the volumes of its pod.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::container::{Mount, MountedImage};
use crate::pod::expand::expand;
use crate::pod::volumes::{is_made_of_objects, volume};

/// What a volume is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A file or directory of the host.
    Host(PathBuf),
    /// An image, and where layers are.
    Image(MountedImage, PathBuf),
}

impl Root {
    fn mount(&self, target: &str) -> Mount {
        match self {
            Self::Host(path) => Mount::new(path, target),
            Self::Image(image, layers) => Mount { image: Some(image.clone()), ..Mount::new(layers, target) },
        }
    }
}

/// The container's mounts, in the order of their targets' depth, so that one within another comes later.
/// `roots` says what each volume is.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    roots: &BTreeMap<String, Root>,
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
    root: &Root,
    env: &BTreeMap<String, String>,
) -> Result<Mount, String> {
    let volume = volume(pod, &wanted.name);
    // What is written by the node, or shared with others, is not the container's to change.
    let own = volume.is_some_and(|volume| is_made_of_objects(volume) || volume.image.is_some());
    let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
    let read_only = own || wanted.read_only == Some(true) || claim.is_some_and(|c| c.read_only == Some(true));
    Ok(Mount {
        sub_path: sub_path(wanted, env)?,
        read_only,
        recursive: matches!(wanted.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        follows_host: wanted.mount_propagation.as_deref() == Some("HostToContainer"),
        devices: volume.is_some_and(|volume| volume.host_path.is_some()),
        ..root.mount(&wanted.mount_path)
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
    use std::path::Path;

    use super::*;

    fn of(mounts_yaml: &str) -> Result<Vec<Mount>, String> {
        let text = format!(
            "{{spec: {{volumes: [{{name: m, configMap: {{name: m}}}}, {{name: e, emptyDir: {{}}}}, {{name: h, hostPath: \
             {{path: /x}}}}, {{name: i, image: {{reference: 'data:1'}}}}], containers: [{{name: c, volumeMounts: {mounts_yaml}}}]}}}}"
        );
        let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
        let mut roots: BTreeMap<String, Root> =
            ["m", "e", "h"].map(|name| (name.to_owned(), Root::Host(Path::new("/v").join(name)))).into();
        roots.insert("i".to_owned(), Root::Image(image(), "/layers".into()));
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

    fn image() -> MountedImage {
        MountedImage { id: "sha256:1".to_owned(), file: "/configs/1".into(), layers: vec!["1".to_owned()] }
    }

    #[test]
    fn an_image_is_mounted_for_reading() {
        let mounts = of("[{name: i, mountPath: /i, subPathExpr: $(NAME)}]").expect("mounts");
        let [only] = mounts.as_slice() else { panic!("{mounts:?}") };
        assert!(only.read_only && !only.devices && only.image == Some(image()));
        let paths = (only.source.as_path(), only.sub_path.as_deref());
        assert_eq!(paths, (Path::new("/layers"), Some(Path::new("web"))));
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
