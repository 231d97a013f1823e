//! Fetches images from OCI registries: manifests and blobs over HTTPS, anonymously, with a password, or with a
//! token that the registry's own service gives for either.
//!
//! Registries on loopback are spoken to without TLS, as by other runtimes, unless a folder says how they are known
//! (`trust.rs`).
//!
//! Always holds: only the registry itself learns who we are, and the token service that it names itself; nothing
//! that began with TLS goes on without.

mod challenge;
mod http;
mod trust;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::image::config::{Document, for_this_machine};
use crate::image::layout::{DOCUMENT_LIMIT, FoundImage, diff_ids, parse};
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::challenge::Challenge;
use crate::image::registry::http::{Answer, Transport, Url};
use crate::image::registry::trust::Trust;
use crate::image::{Digest, Image, ImageError, ImageStore, Reference};

/// What manifests may look like.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// What a pod's author can do about a registry that denies access; the end of such an error.
pub const REMEDY: &str = "set imagePullSecrets";
/// Redirects that are followed, as from a registry to where it keeps its blobs.
const REDIRECTS: usize = 5;

/// A user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password, or what stands for one.
    pub password: String,
}

/// A password is never printed.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One pull.
struct Pull<'a> {
    reference: &'a Reference,
    login: Option<&'a Login>,
    /// Where the repository is.
    base: String,
    transport: Transport,
    /// What the registry wants in `Authorization`, once it has said so.
    authorization: Option<String>,
}

/// Fetches the image with the logins for its registry, in their order, and then without one.
///
/// # Errors
/// What the pod's event says: of several reasons the first, that of the login that was meant.
pub async fn pull_as(
    store: &ImageStore,
    reference: &Reference,
    logins: &[(String, Login)],
) -> Result<Image, String> {
    let own = logins.iter().filter(|(registry, _)| *registry == reference.registry);
    let mut why = None;
    for login in own.map(|(_, login)| Some(login)).chain([None]) {
        match pull(store, reference, login).await {
            Ok(image) => return Ok(image),
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.unwrap_or_default())
}

/// Fetches the image into the store, unless the store has it already. The error is what the pod's event says.
pub async fn pull(store: &ImageStore, reference: &Reference, login: Option<&Login>) -> Result<Image, String> {
    let trust = Trust::of(&reference.registry, &store.certificates());
    let base = base(reference, trust.is_told());
    let transport = Transport::new(trust)?;
    let mut pull = Pull { reference, login, base, transport, authorization: None };
    let (manifest, digest) = pull.manifest().await?;
    let config = manifest.config.ok_or("the manifest names no configuration")?;
    let config = pull.bytes(&pull.blob(&config.digest), Some(&config.digest)).await?;
    let diff_ids = diff_ids(&config).map_err(|error| error.chain())?;
    if diff_ids.len() != manifest.layers.len() {
        return Err("configuration and manifest list different numbers of layers".to_owned());
    }
    let names = vec![reference.clone(), reference.with_digest(&digest)];
    let known = find(store, &Digest::of(&config)).await?;
    let dir = tempfile_in(store)?;
    let mut layers = Vec::new();
    for (number, layer) in manifest.layers.iter().enumerate() {
        let path = dir.0.join(number.to_string());
        if known.is_none() {
            pull.save(&layer.digest, &path).await?;
        }
        layers.push(path);
    }
    let found = FoundImage { names, config, diff_ids, layers };
    let store = store.clone();
    let added = tokio::task::spawn_blocking(move || {
        let _kept_until_added = &dir;
        store.add(&found, |number| crate::image::archive::open(&found.layers[number]))
    });
    added.await.map_err(|error| error.to_string())?.map_err(|error| error.chain())
}

async fn find(store: &ImageStore, id: &Digest) -> Result<Option<Image>, String> {
    let (store, id) = (store.clone(), id.to_string());
    let found = tokio::task::spawn_blocking(move || store.find(&id)).await;
    found.map_err(|error| error.to_string())?.map_err(|error| error.chain())
}

fn tempfile_in(store: &ImageStore) -> Result<crate::image::store::Scratch, String> {
    store.scratch().map_err(|error| error.chain())
}

/// The repository's URL. `told`: how the registry is known.
fn base(reference: &Reference, told: bool) -> String {
    let registry = &reference.registry;
    let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let on_loopback = name == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let scheme = if on_loopback && !told { "http" } else { "https" };
    format!("{scheme}://{host}/v2/{}", reference.repository)
}

impl Pull<'_> {
    fn blob(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    /// The manifest for this machine, and the digest under which the registry has what the name means.
    async fn manifest(&mut self) -> Result<(Document, Digest), String> {
        let base = self.base.clone();
        let wanted = self.reference.digest.clone();
        let name = wanted.as_ref().map(Digest::to_string).or_else(|| self.reference.tag.clone());
        let first = format!("{base}/manifests/{}", name.unwrap_or_default());
        let bytes = self.bytes(&first, wanted.as_ref()).await?;
        let digest = Digest::of(&bytes);
        let mut document: Document = document(&bytes)?;
        if document.config.is_none() {
            let fitting = for_this_machine(&document.manifests).ok_or_else(|| {
                format!(
                    "no match for platform in manifest: not found linux/{}",
                    crate::image::config::architecture()
                )
            })?;
            let next = fitting.digest.clone();
            let bytes = self.bytes(&format!("{base}/manifests/{next}"), Some(&next)).await?;
            document = self::document(&bytes)?;
        }
        Ok((document, digest))
    }

    /// A document whole, checked against its digest if that is known.
    async fn bytes(&mut self, url: &str, wanted: Option<&Digest>) -> Result<Vec<u8>, String> {
        let mut answer = self.get(url).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > DOCUMENT_LIMIT {
                return Err(format!("{url} is larger than {DOCUMENT_LIMIT} bytes"));
            }
        }
        check(url, &Digest::of(&bytes), wanted)?;
        Ok(bytes)
    }

    /// A layer into a file, checked.
    async fn save(&mut self, digest: &Digest, path: &Path) -> Result<(), String> {
        let url = self.blob(digest);
        let mut answer = self.get(&url).await?;
        let failed = |error: io::Error| format!("write {}: {error}", path.display());
        let mut file = File::create(path).map_err(failed)?;
        let mut hasher = crate::image::digest::Hasher::default();
        while let Some(chunk) = answer.chunk().await? {
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(failed)?;
        }
        check(&url, &hasher.finish(), Some(digest))
    }

    /// Asks, and once more with what the registry wants to know of us. What others want to know isn't heard.
    async fn get(&mut self, url: &str) -> Result<Answer, String> {
        let first = Url::parse(url)?;
        let (answer, from) = self.follow(&first).await?;
        if answer.status != 401 || !from.same_host(&first) {
            return good(answer, url, self.reference);
        }
        let challenge = answer.header("www-authenticate").and_then(|text| Challenge::parse(&text));
        let challenge = challenge.ok_or_else(|| format!("{url}: 401 Unauthorized without a challenge"))?;
        self.authorization = Some(self.authorize(&first, challenge).await?);
        good(self.follow(&first).await?.0, url, self.reference)
    }

    /// Follows redirects, and says whose the answer is; another host isn't told who we are.
    async fn follow(&self, first: &Url) -> Result<(Answer, Url), String> {
        let mut next = first.clone();
        for _ in 0..REDIRECTS {
            let authorization = self.authorization.as_deref().filter(|_| next.same_host(first));
            let answer = self.transport.get(&next, authorization, MANIFESTS).await?;
            match answer.header("location").filter(|_| (300..400).contains(&answer.status)) {
                Some(location) => next = next.join(&location)?,
                None => return Ok((answer, next)),
            }
        }
        Err(format!("{}: more than {REDIRECTS} redirects", first.server()))
    }

    async fn authorize(&self, registry: &Url, challenge: Challenge) -> Result<String, String> {
        let basic = self.login.map(challenge::basic);
        match challenge {
            Challenge::Basic => basic.ok_or_else(|| self.denied("no basic auth credentials")),
            Challenge::Bearer { realm, service, scope } => {
                let url = registry.join(&challenge::token_url(&realm, &service, &scope))?;
                let answer = self.transport.get(&url, basic.as_deref(), "application/json").await?;
                if answer.status != 200 {
                    return Err(self.denied(&format!("the token service answered {}", answer.status)));
                }
                Ok(format!("Bearer {}", challenge::token(&answer.whole().await?)?))
            }
        }
    }

    fn denied(&self, why: &str) -> String {
        format!("pull access denied for {}: {why}; {REMEDY}", self.reference.name())
    }
}

fn document(bytes: &[u8]) -> Result<Document, String> {
    parse(bytes, Path::new("the manifest")).map_err(|error: ImageError| error.chain())
}

fn check(what: &str, found: &Digest, wanted: Option<&Digest>) -> Result<(), String> {
    match wanted.filter(|wanted| *wanted != found) {
        Some(wanted) => Err(format!("{what} has the digest {found} instead of {wanted}")),
        None => Ok(()),
    }
}

fn good(answer: Answer, url: &str, reference: &Reference) -> Result<Answer, String> {
    match answer.status {
        200 => Ok(answer),
        404 => Err(format!("{reference}: not found")),
        401 | 403 => {
            Err(format!("pull access denied for {}: {} from {url}", reference.name(), answer.status))
        }
        status => Err(format!("unexpected status {status} from {url}")),
    }
}
