//! The configuration of an image, and the JSON documents around it, as the OCI image specification and
//! Docker's image format have them in common.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::image::Digest;

/// What an image says of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `USER[:GROUP]`, by name or number; empty: root.
    pub user: String,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Stands before the arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the command where there is no entrypoint.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Empty: `/`.
    pub working_dir: String,
    /// The signal that asks the container to end; empty: `SIGTERM`.
    pub stop_signal: String,
    /// Directories for which the image wants a volume.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// The file that a manifest names as its configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// What concerns containers.
    #[serde(deserialize_with = "null_as_default")]
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub rootfs: RootFs,
}

/// The layers by the digests of their uncompressed archives.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// A pointer to contents.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind.
    #[serde(default)]
    pub media_type: String,
    /// Which contents.
    pub digest: Digest,
    /// In bytes.
    #[serde(default)]
    pub size: u64,
    /// For which machine, in an index.
    pub platform: Option<Platform>,
    /// Such as a name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
}

/// An index or a manifest, told apart by what it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    /// Of an index.
    #[serde(deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Of a manifest.
    pub config: Option<Descriptor>,
    /// Of a manifest, lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
}

/// One image of `manifest.json`, as `docker save` writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// Path of the configuration in the archive.
    pub config: String,
    /// Names with tags.
    #[serde(default, deserialize_with = "null_as_default")]
    pub repo_tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<String>,
}

/// This machine's architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest for this machine among those of an index.
pub fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |p: &Platform| p.os == "linux" && p.architecture == architecture();
    let named = manifests.iter().find(|m| m.platform.as_ref().is_some_and(fits));
    named.or_else(|| manifests.iter().find(|m| m.platform.is_none()))
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_missing_fields_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":["A=1"]},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let file: ConfigFile = serde_json::from_str(text).expect("parses");
        assert_eq!((file.config.cmd.len(), file.config.env.as_slice()), (0, &["A=1".to_owned()][..]));
        let none: ConfigFile = serde_json::from_str(r#"{"config":null}"#).expect("parses");
        assert_eq!(none.config, ImageConfig::default());
    }

    #[test]
    fn this_machine_is_preferred_and_a_machine_without_name_is_taken() {
        let of = |arch: Option<&str>| Descriptor {
            media_type: String::new(),
            digest: Digest::of(arch.unwrap_or("none").as_bytes()),
            size: 0,
            platform: arch.map(|a| Platform { architecture: a.to_owned(), os: "linux".to_owned() }),
            annotations: BTreeMap::new(),
        };
        let all = [of(Some("s390x")), of(None), of(Some(architecture()))];
        assert_eq!(for_this_machine(&all), Some(&all[2]));
        assert_eq!(for_this_machine(&all[..2]), Some(&all[1]));
        assert_eq!(for_this_machine(&all[..1]), None);
    }
}
