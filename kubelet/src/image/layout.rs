//! Finds the images in a directory: an OCI image layout (`index.json`), or what `docker save` wrote
//! (`manifest.json`). Docker writes both; its own file has the names as they were given.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;

use crate::confined::Confined;
use crate::image::config::{ConfigFile, Descriptor, Document, SavedImage, for_this_machine};
use crate::image::{Digest, ImageError, Reference};

/// The longest document that is read whole.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;
/// Indexes within indexes that are followed.
const NESTING: usize = 4;

/// An image whose parts are at hand.
#[derive(Debug)]
pub struct FoundImage {
    /// Under which names; may be empty.
    pub names: Vec<Reference>,
    /// The configuration file as it is: its digest is the image's identity.
    pub config: Vec<u8>,
    /// Each layer's digest as an uncompressed archive, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Where each layer's archive is, in the same order.
    pub layers: Vec<PathBuf>,
}

/// A directory with images.
#[derive(Debug)]
pub struct Layout {
    root: Confined,
    dir: PathBuf,
}

impl Layout {
    /// Opens it; whether there are images in it is another question.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let root = Confined::open(dir).map_err(crate::image::system("open", dir))?;
        Ok(Self { root, dir: dir.to_owned() })
    }

    /// The archive of a layer, as stored.
    pub fn layer(&self, path: &Path) -> Result<File, ImageError> {
        let opened = self.root.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from);
        opened.map_err(crate::image::system("open", &self.dir.join(path)))
    }

    /// All images.
    pub fn images(&self) -> Result<Vec<FoundImage>, ImageError> {
        if let Some(saved) = self.optional::<Vec<SavedImage>>("manifest.json")? {
            return saved.into_iter().map(|image| self.saved(image)).collect();
        }
        let Some(index) = self.optional::<Document>("index.json")? else {
            return Err(ImageError::Malformed(format!(
                "{} has neither manifest.json (docker save) nor index.json (OCI layout): it is no image",
                self.dir.display()
            )));
        };
        index.manifests.iter().map(|manifest| self.described(manifest)).collect()
    }

    fn saved(&self, saved: SavedImage) -> Result<FoundImage, ImageError> {
        let names = saved.repo_tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
        let config = self.bytes(Path::new(&saved.config))?;
        found(names, config, saved.layers.iter().map(PathBuf::from).collect())
    }

    fn described(&self, descriptor: &Descriptor) -> Result<FoundImage, ImageError> {
        let names = names(descriptor)?;
        let manifest = self.manifest(descriptor, NESTING)?;
        let config = manifest.config.ok_or_else(|| {
            ImageError::Malformed(format!("the manifest {} names no configuration", descriptor.digest))
        })?;
        let layers = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
        found(names, self.checked(&config.digest)?, layers)
    }

    fn manifest(&self, descriptor: &Descriptor, nesting: usize) -> Result<Document, ImageError> {
        let bytes = self.checked(&descriptor.digest)?;
        let document: Document = parse(&bytes, &blob(&descriptor.digest))?;
        if document.config.is_some() || nesting == 0 {
            return Ok(document);
        }
        let fitting = for_this_machine(&document.manifests).ok_or_else(|| {
            let machine = crate::image::config::architecture();
            ImageError::Malformed(format!("no manifest of {} is for linux/{machine}", descriptor.digest))
        })?;
        self.manifest(fitting, nesting - 1)
    }

    /// Contents named by their digest.
    fn checked(&self, wanted: &Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = self.bytes(&blob(wanted))?;
        let found = Digest::of(&bytes);
        if found == *wanted {
            return Ok(bytes);
        }
        let what = blob(wanted).display().to_string();
        Err(ImageError::Digest { what, found, wanted: wanted.clone() })
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        self.root.read(path, DOCUMENT_LIMIT).map_err(crate::image::system("read", &self.dir.join(path)))
    }

    fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ImageError> {
        match self.root.read(Path::new(name), DOCUMENT_LIMIT) {
            Ok(bytes) => parse(&bytes, Path::new(name)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(crate::image::system("read", &self.dir.join(name))(error)),
        }
    }
}

/// A JSON document of an image.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &Path) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Malformed(format!("{} is not as it should be: {error}", what.display())))
}

fn found(names: Vec<Reference>, config: Vec<u8>, layers: Vec<PathBuf>) -> Result<FoundImage, ImageError> {
    let diff_ids = diff_ids(&config)?;
    if diff_ids.len() == layers.len() {
        return Ok(FoundImage { names, config, diff_ids, layers });
    }
    let (listed, there) = (diff_ids.len(), layers.len());
    Err(ImageError::Malformed(format!("the configuration lists {listed} layers and the manifest {there}")))
}

/// The layers that a configuration lists, lowest first.
pub fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, ImageError> {
    let file: ConfigFile = parse(config, Path::new("the image's configuration"))?;
    Ok(file.rootfs.diff_ids)
}

fn blob(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// containerd's annotation has the whole name; OCI's own often only the tag, which names nothing alone.
fn names(descriptor: &Descriptor) -> Result<Vec<Reference>, ImageError> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let whole = annotation("io.containerd.image.name");
    let own = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    whole.or(own).into_iter().map(|name| name.parse()).collect()
}
