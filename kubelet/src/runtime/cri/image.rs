//! Images of a runtime that keeps them itself.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tonic::Status;

use super::client::{CriClient, refused, text};
use super::proto;
use crate::image::registry::Login;
use crate::image::{Image, ImageConfig, ImageError, Reference};
use crate::runtime::{Begins, Fetch, ImageUse, PullPolicy, RuntimeError};

/// Finds the image, and has it fetched if need be.
pub async fn ensure(
    client: &CriClient,
    name: &str,
    fetch: &Fetch,
    begins: &Begins<'_>,
) -> Result<ImageUse, RuntimeError> {
    let reference: Reference = name.parse().map_err(|error: ImageError| {
        let why = error.chain();
        RuntimeError::InvalidImageName(format!("Failed to apply default image tag {name:?}: {why}"))
    })?;
    let whole = reference.to_string();
    let found = client.image(&whole).await.map_err(refused("look for the image"))?;
    match (found, fetch.policy) {
        (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => {
            Ok(ImageUse::Present(Some(Box::new(known(image)?))))
        }
        (None, PullPolicy::Never) => Err(RuntimeError::NeverPull(format!(
            "Container image \"{name}\" is not present with pull policy of Never"
        ))),
        _ => {
            begins();
            pull(client, &reference, &whole, &fetch.logins).await
        }
    }
}

/// With the logins for that registry in their order and then without one; of several reasons the first is that
/// of the login that was meant.
async fn pull(
    client: &CriClient,
    reference: &Reference,
    whole: &str,
    logins: &[(String, Login)],
) -> Result<ImageUse, RuntimeError> {
    let begun = Instant::now();
    let own = logins.iter().filter(|(registry, _)| *registry == reference.registry);
    let mut why = None;
    for login in own.map(|(_, login)| Some(login)).chain([None]) {
        let auth = login.map(|login| proto::AuthConfig {
            username: login.user.clone(),
            password: login.password.clone(),
            server_address: reference.registry.clone(),
        });
        match client.pull(whole, auth).await {
            Ok(_) => return pulled(client, whole, begun.elapsed()).await,
            Err(status) => why = why.or(Some(status)),
        }
    }
    let status = why.unwrap_or_else(|| Status::unknown("nobody was asked"));
    Err(RuntimeError::Image(text(&status)))
}

async fn pulled(client: &CriClient, whole: &str, took: Duration) -> Result<ImageUse, RuntimeError> {
    let image = client.image(whole).await.map_err(refused("look at the pulled image"))?;
    let image = image
        .ok_or_else(|| RuntimeError::Image(format!("the runtime has pulled {whole} and doesn't know it")))?;
    Ok(ImageUse::Pulled(Box::new(known(image)?), took))
}

/// What the runtime says of its image. The rest of the configuration is the runtime's to know.
fn known(image: proto::Image) -> Result<Image, RuntimeError> {
    let id = image.id.parse();
    let id =
        id.map_err(|why| RuntimeError::Image(format!("the runtime calls an image {:?}: {why}", image.id)))?;
    let user = image.uid.map_or(image.username, |uid| uid.value.to_string());
    Ok(Image {
        id,
        names: image.repo_tags,
        config: ImageConfig { user, ..ImageConfig::default() },
        layers: Vec::new(),
        size: image.size,
        added: Timestamp::UNIX_EPOCH,
    })
}
