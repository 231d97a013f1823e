//! The images that a container needs: its own, and those that it mounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};

use crate::agent::perform::Performer;
use crate::agent::volumes;
use crate::container::MountedImage;
use crate::image::registry::Login;
use crate::pod::effect::{ImageFailure, NeededImage, Note, StartFailure};
use crate::pod::env::Reference;
use crate::pod::isolation::pull_policy;
use crate::pod::pull_secrets;
use crate::pod::start_outcome::found;
use crate::pod::volumes::mounted_images;
use crate::pod::volumes::mounts::Root;
use crate::runtime::{ContainerConfig, Fetch, ImageUse, RuntimeError};

/// What a container is made from.
pub struct Images {
    /// Its own image.
    pub own: ImageUse,
    /// Those that it mounts, by their volumes' names.
    pub mounted: BTreeMap<String, MountedImage>,
}

impl Performer {
    /// Finds or fetches all images of a container; as upstream, those of its volumes first. An image that only other
    /// containers mount is theirs to wait for.
    pub(super) async fn images(
        &self,
        pod: &Pod,
        spec: &Container,
        bare: &ContainerConfig,
    ) -> Result<Images, StartFailure> {
        let logins = self.logins(pod).await;
        let mut mounted = BTreeMap::new();
        for (volume, source) in mounted_images(pod, spec) {
            let image = self.volume_image(pod, bare, (volume, source), &logins).await?;
            mounted.extend(image.map(|image| (volume.to_owned(), image)));
        }
        let fetch = Fetch { policy: pull_policy(spec.image_pull_policy.as_deref()), logins };
        let needed = NeededImage { name: bare.image.clone(), of_volume: false };
        Ok(Images { own: self.ensure(pod, bare, &fetch, needed).await?, mounted })
    }

    /// `None` where the runtime keeps no images, and nothing really runs.
    async fn volume_image(
        &self,
        pod: &Pod,
        bare: &ContainerConfig,
        (volume, source): (&str, &ImageVolumeSource),
        logins: &[(String, Login)],
    ) -> Result<Option<MountedImage>, StartFailure> {
        if let Some(why) = self.runtime.lacks_image_volumes(&bare.pod) {
            return Err(StartFailure::Volume(volumes::failed(volume, &why)));
        }
        let name = source.reference.clone().unwrap_or_default();
        // Without a command, so that no process of the host stands in for the image.
        let wanted = ContainerConfig { image: name.clone(), command: Vec::new(), ..bare.clone() };
        let fetch = Fetch { policy: pull_policy(source.pull_policy.as_deref()), logins: logins.to_vec() };
        let needed = NeededImage { name: name.clone(), of_volume: true };
        let image = self.ensure(pod, &wanted, &fetch, needed).await?;
        self.record(pod, found(&name, &image));
        Ok(image.image().map(|image| MountedImage {
            id: image.id.to_string(),
            file: self.runtime.image_store().map(|store| store.config_path(&image.id)).unwrap_or_default(),
            layers: image.layers.clone(),
        }))
    }

    async fn ensure(
        &self,
        pod: &Pod,
        config: &ContainerConfig,
        fetch: &Fetch,
        needed: NeededImage,
    ) -> Result<ImageUse, StartFailure> {
        let begins = || self.record(pod, needed.pulling(&config.container));
        let found = self.runtime.ensure_image(config, fetch, &begins).await;
        found.map_err(|error| StartFailure::Image(needed, failure(error)))
    }

    /// A Secret that can't be looked up is one that is missing.
    async fn logins(&self, pod: &Pod) -> Vec<(String, Login)> {
        let references: Vec<Reference> = pull_secrets::references(pod).collect();
        if references.is_empty() {
            return Vec::new();
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let sources = self.references.sources(namespace, &references).await.unwrap_or_default();
        let missing = pull_secrets::missing(pod, &sources).join(", ");
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
            );
            self.record(pod, Note::warning("FailedToRetrieveImagePullSecret", text));
        }
        pull_secrets::logins(pod, &sources)
    }

    /// What the volumes are that show images.
    pub(super) fn image_roots(&self, images: &Images) -> impl Iterator<Item = (String, Root)> {
        let layers = self.runtime.image_store().map(|store| store.layers()).unwrap_or_default();
        let mounted = images.mounted.clone().into_iter();
        mounted.map(move |(volume, image)| (volume, Root::Image(image, layers.clone())))
    }
}

fn failure(error: RuntimeError) -> ImageFailure {
    match error {
        RuntimeError::NeverPull(message) => ImageFailure::NeverPull(message),
        RuntimeError::InvalidImageName(message) => ImageFailure::InvalidName(message),
        other => ImageFailure::Pull(other.chain()),
    }
}
