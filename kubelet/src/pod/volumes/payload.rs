//! The files of a volume that is made of objects: ConfigMaps, Secrets, the pod itself, tokens, certificates.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use crate::confined::relative;
use crate::pod::downward::{self, NodeFacts};
use crate::pod::env::Sources;
use crate::pod::roles::declared;
use crate::pod::volumes::trust_bundle;

/// The mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;

/// A token is for nobody else, where it is known for whom it is.
const TOKEN_MODE: i32 = 0o600;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Whose it is; `None`: root's.
    pub owner: Option<u32>,
}

/// The files of a volume by their paths in it.
pub type Payload = BTreeMap<PathBuf, File>;

/// What a payload is made from.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Whose volume.
    pub pod: &'a Pod,
    /// The objects it refers to, as far as they exist.
    pub sources: &'a Sources,
    /// What the downward API tells of the node.
    pub node: &'a NodeFacts,
    /// Tokens by their paths in the volume.
    pub tokens: &'a BTreeMap<String, String>,
}

/// The tokens that a volume shows.
pub fn tokens(volume: &Volume) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    parts.filter_map(|part| part.service_account_token.as_ref())
}

/// All files of the volume. The error is what an event says.
pub fn payload(volume: &Volume, ground: Ground<'_>) -> Result<Payload, String> {
    let mut files = Files::default();
    let mode = |given: Option<i32>| given.unwrap_or(DEFAULT_MODE);
    if let Some(source) = &volume.config_map {
        let wish = Wish::new(source.items.as_deref(), source.optional, mode(source.default_mode));
        files.keys(&ground.config_map(&source.name), wish)?;
    }
    if let Some(source) = &volume.secret {
        let wish = Wish::new(source.items.as_deref(), source.optional, mode(source.default_mode));
        files.keys(&ground.secret(source.secret_name.as_deref().unwrap_or_default()), wish)?;
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        files.downward(items, mode(source.default_mode), ground)?;
    }
    if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            files.projection(part, mode(source.default_mode), ground)?;
        }
    }
    Ok(files.0)
}

/// A ConfigMap or Secret, and how upstream speaks of it.
struct Object<'a> {
    kind: &'static str,
    name: &'a str,
    /// What is said of a key that isn't there, up to the key.
    without_key: &'static str,
    data: Option<BTreeMap<String, Vec<u8>>>,
}

impl<'a> Ground<'a> {
    fn config_map(self, name: &'a str) -> Object<'a> {
        let data = self.sources.config_maps.get(name).map(map_bytes);
        let without_key = "configmap references non-existent config key";
        Object { kind: "configmap", name, without_key, data }
    }

    fn secret(self, name: &'a str) -> Object<'a> {
        let data = self.sources.secrets.get(name).map(secret_bytes);
        Object { kind: "secret", name, without_key: "references non-existent secret key", data }
    }
}

/// What a volume asks of an object: which keys, and with which mode.
#[derive(Clone, Copy)]
struct Wish<'a> {
    /// All keys if there are none.
    items: &'a [KeyToPath],
    optional: bool,
    mode: i32,
}

impl<'a> Wish<'a> {
    fn new(items: Option<&'a [KeyToPath]>, optional: Option<bool>, mode: i32) -> Self {
        Self { items: items.unwrap_or_default(), optional: optional == Some(true), mode }
    }
}

#[derive(Default)]
struct Files(Payload);

impl Files {
    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), String> {
        self.put(path, File { bytes, mode: bits(mode), owner: None })
    }

    fn put(&mut self, path: &str, file: File) -> Result<(), String> {
        let path = relative(Path::new(path).as_os_str().as_bytes())?
            .ok_or_else(|| "the path of a file is empty".to_owned())?;
        self.0.insert(path, file);
        Ok(())
    }

    /// All keys, or those that are named, under the paths they are given.
    fn keys(&mut self, object: &Object<'_>, wish: Wish<'_>) -> Result<(), String> {
        let data = match &object.data {
            Some(data) => data,
            None if wish.optional => return Ok(()),
            None => return Err(format!("{} \"{}\" not found", object.kind, object.name)),
        };
        if wish.items.is_empty() {
            return data.iter().try_for_each(|(key, bytes)| self.add(key, bytes.clone(), wish.mode));
        }
        for item in wish.items {
            match data.get(&item.key) {
                Some(bytes) => self.add(&item.path, bytes.clone(), item.mode.unwrap_or(wish.mode))?,
                None if wish.optional => {}
                None => return Err(format!("{}: {}", object.without_key, item.key)),
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: &[DownwardAPIVolumeFile],
        mode: i32,
        ground: Ground<'_>,
    ) -> Result<(), String> {
        for item in items {
            let text = downward_text(item, ground)?;
            self.add(&item.path, text.into_bytes(), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }

    fn projection(&mut self, part: &VolumeProjection, mode: i32, ground: Ground<'_>) -> Result<(), String> {
        if let Some(map) = &part.config_map {
            let wish = Wish::new(map.items.as_deref(), map.optional, mode);
            self.keys(&ground.config_map(&map.name), wish)?;
        }
        if let Some(secret) = &part.secret {
            let wish = Wish::new(secret.items.as_deref(), secret.optional, mode);
            self.keys(&ground.secret(&secret.name), wish)?;
        }
        if let Some(downward) = &part.downward_api {
            self.downward(downward.items.as_deref().unwrap_or_default(), mode, ground)?;
        }
        if let Some(wanted) = &part.service_account_token {
            let token = ground.tokens.get(&wanted.path).ok_or("the token has not been issued")?;
            let owner = only_user(ground.pod);
            let mode = if owner.is_some() || has_group(ground.pod) { TOKEN_MODE } else { mode };
            let bytes = token.clone().into_bytes();
            self.put(&wanted.path, File { bytes, mode: bits(mode), owner })?;
        }
        if let Some(wanted) = &part.cluster_trust_bundle {
            let anchors = trust_bundle::anchors(wanted, &ground.sources.trust_bundles)?;
            self.add(&wanted.path, anchors.into_bytes(), mode)?;
        }
        if part.pod_certificate.is_some() {
            return Err("podCertificate is not supported by this node".to_owned());
        }
        Ok(())
    }
}

/// As files have it.
fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or_default() & 0o777
}

/// The one user that all containers run as by the pod's word.
fn only_user(pod: &Pod) -> Option<u32> {
    let shared = pod.spec.as_ref()?.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = declared(pod).map(|(container, _)| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(shared)
    });
    let first = users.next().flatten()?;
    let same = users.all(|user| user == Some(first));
    u32::try_from(first).ok().filter(|_| same)
}

fn has_group(pod: &Pod) -> bool {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    context.is_some_and(|context| context.fs_group.is_some())
}

fn map_bytes(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    let bytes = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    texts.chain(bytes).collect()
}

fn secret_bytes(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect()
}

fn downward_text(item: &DownwardAPIVolumeFile, ground: Ground<'_>) -> Result<String, String> {
    if let Some(field) = &item.field_ref {
        return downward::field(ground.pod, &field.field_path, ground.node);
    }
    let resource = item.resource_field_ref.as_ref().ok_or("a file of the downward API names nothing")?;
    let first = ground.pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let first = first.ok_or("the pod has no containers")?;
    downward::resource(ground.pod, first, resource, ground.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let map = "{data: {a: text, b: other}, binaryData: {c: AAE=}}";
        let secret = "{data: {key: c2VjcmV0}}";
        Sources {
            config_maps: BTreeMap::from([("m".to_owned(), serde_yaml::from_str(map).expect("a map"))]),
            secrets: BTreeMap::from([("s".to_owned(), serde_yaml::from_str(secret).expect("a secret"))]),
            ..Sources::default()
        }
    }

    /// `PATH MODE CONTENTS` of each file.
    fn show(volume: &str) -> Result<Vec<String>, String> {
        let pod = "{metadata: {name: p, namespace: d, uid: u, labels: {app: web}}, spec: {containers: \
                   [{name: c, resources: {limits: {cpu: 250m}}}]}}";
        let pod: Pod = serde_yaml::from_str(pod).expect("a pod");
        let volume: Volume = serde_yaml::from_str(&format!("{{name: v, {volume}}}")).expect("a volume");
        let tokens = BTreeMap::from([("token".to_owned(), "t0ken".to_owned())]);
        let ground = Ground { pod: &pod, sources: &sources(), node: &NodeFacts::default(), tokens: &tokens };
        let files = payload(&volume, ground)?;
        let line = |(path, file): (&PathBuf, &File)| {
            format!(
                "{} {:o} {}",
                path.display(),
                file.mode,
                String::from_utf8_lossy(&file.bytes).escape_debug()
            )
        };
        Ok(files.iter().map(line).collect())
    }

    #[test]
    fn files_come_from_objects_as_upstream() {
        for (volume, want) in [
            ("configMap: {name: m}", vec!["a 644 text", "b 644 other", "c 644 \\0\\u{1}"]),
            (
                "configMap: {name: m, defaultMode: 256, items: [{key: a, path: x/y}, {key: b, path: b, mode: 511}]}",
                vec!["b 777 other", "x/y 400 text"],
            ),
            ("configMap: {name: m, optional: true, items: [{key: none, path: x}]}", vec![]),
            ("configMap: {name: none, optional: true}", vec![]),
            ("secret: {secretName: s}", vec!["key 644 secret"]),
            (
                "downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, \
                 resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}]}",
                vec!["cpu 644 250", "l 644 app=\\\"web\\\""],
            ),
            (
                "projected: {defaultMode: 288, sources: [{serviceAccountToken: {path: token}}, {configMap: {name: m, \
                 items: [{key: a, path: ca.crt}]}}, {secret: {name: s}}]}",
                vec!["ca.crt 440 text", "key 440 secret", "token 440 t0ken"],
            ),
            (
                "projected: {sources: [{clusterTrustBundle: {path: x/ca.pem, name: none, optional: true}}]}",
                vec!["x/ca.pem 644 "],
            ),
        ] {
            assert_eq!(show(volume), Ok(want.into_iter().map(str::to_owned).collect()), "{volume}");
        }
    }

    #[test]
    fn what_is_missing_is_named_as_upstream() {
        for (volume, why) in [
            ("configMap: {name: none}", "configmap \"none\" not found"),
            (
                "projected: {sources: [{clusterTrustBundle: {path: ca, signerName: x/s, labelSelector: {}}}]}",
                "combination of signerName and labelSelector matched zero ClusterTrustBundles",
            ),
            ("secret: {secretName: none}", "secret \"none\" not found"),
            (
                "configMap: {name: m, items: [{key: z, path: z}]}",
                "configmap references non-existent config key: z",
            ),
            ("secret: {secretName: s, items: [{key: z, path: z}]}", "references non-existent secret key: z"),
            (
                "configMap: {name: m, items: [{key: a, path: ../../etc/passwd}]}",
                "the path \"../../etc/passwd\" leads out of its directory",
            ),
        ] {
            assert_eq!(show(volume), Err(why.to_owned()), "{volume}");
        }
    }

    #[test]
    fn a_token_is_its_users_where_that_is_known() {
        let volume = "{name: v, projected: {sources: [{serviceAccountToken: {path: token}}]}}";
        let volume: Volume = serde_yaml::from_str(volume).expect("a volume");
        let tokens = BTreeMap::from([("token".to_owned(), "t0ken".to_owned())]);
        for (spec, mode, owner) in [
            ("containers: [{name: c}]", 0o644, None),
            ("securityContext: {runAsUser: 7}, containers: [{name: c}]", 0o600, Some(7)),
            ("securityContext: {fsGroup: 7}, containers: [{name: c}]", 0o600, None),
            (
                "securityContext: {runAsUser: 7}, containers: [{name: c}, {name: d, securityContext: {runAsUser: 8}}]",
                0o644,
                None,
            ),
        ] {
            let pod: Pod = serde_yaml::from_str(&format!("{{spec: {{{spec}}}}}")).expect("a pod");
            let ground =
                Ground { pod: &pod, sources: &sources(), node: &NodeFacts::default(), tokens: &tokens };
            let files = payload(&volume, ground).expect("files");
            let token = &files[Path::new("token")];
            assert_eq!((token.mode, token.owner), (mode, owner), "{spec}");
        }
    }
}
