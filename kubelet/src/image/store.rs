//! The images of a node, or of all nodes of one machine that share the directory.
//!
//! | path | what |
//! |---|---|
//! | `index.json` | which images there are, under which names, made of which layers |
//! | `configs/HEX.json` | an image's configuration; held locked (shared) by each container made from it |
//! | `layers/HEX` | a layer, unpacked; the first digits of its digest, so that many fit into a mount's options |
//! | `tmp/` | what is being loaded; whatever an earlier process left is removed by the next load |
//! | `certs.d/HOST:PORT/` | how a registry is known, if somebody has said so (`registry/trust.rs`) |
//! | `lock` | held (exclusive) by whoever changes the index |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::image::config::ConfigFile;
use crate::image::digest::Digesting;
use crate::image::layout::{FoundImage, Layout, parse};
use crate::image::unpack::{sync, unpack};
use crate::image::{Digest, ImageConfig, ImageError, Reference, archive, system};
use crate::shim::record::{read, write_durably};

/// Digits of a layer's directory: 96 bits of its digest, checked when the layer is added.
const LAYER_DIGITS: usize = 24;

/// Parts of the disk: with less free than the first, images go until the second is.
const FREE_WANTED: (f64, f64) = (0.15, 0.20);

/// For how long an image is kept that nobody uses yet, or any more (upstream's default).
const LEAST_AGE: Duration = Duration::from_secs(120);

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration.
    pub id: Digest,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// What it says of its containers.
    pub config: ImageConfig,
    /// Its layers' directories below [`ImageStore::layers`], lowest first.
    pub layers: Vec<String>,
    /// Bytes of its layers' archives, uncompressed.
    pub size: u64,
    /// When it came.
    pub added: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    names: BTreeSet<String>,
    layers: Vec<StoredLayer>,
    added: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLayer {
    diff_id: Digest,
    size: u64,
}

/// The store below one directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    dir: PathBuf,
}

/// Leaves nothing behind, however a load ends.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl ImageStore {
    /// Uses this directory and makes it if need be.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        for part in ["configs", "layers", "tmp"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(system("make", &path))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the layers' directories are.
    pub fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// Where it is said how registries are known.
    pub fn certificates(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// The file that a container made from this image holds locked.
    pub fn config_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("configs").join(format!("{}.json", id.hex()))
    }

    /// Takes the images of an OCI layout (a directory) or an archive (a file). `name` names the one image
    /// of a source that has no names of its own.
    pub fn load(&self, source: &Path, name: Option<&Reference>) -> Result<Vec<Image>, ImageError> {
        if source.is_dir() {
            return self.load_layout(source, name);
        }
        self.load_archive(archive::open(source)?, name)
    }

    /// Takes the images of an archive that is read from a stream.
    pub fn load_archive(
        &self,
        archive: impl Read,
        name: Option<&Reference>,
    ) -> Result<Vec<Image>, ImageError> {
        let scratch = self.scratch()?;
        archive::lay_out(archive, &scratch.0)?;
        self.load_layout(&scratch.0, name)
    }

    fn load_layout(&self, dir: &Path, name: Option<&Reference>) -> Result<Vec<Image>, ImageError> {
        let layout = Layout::open(dir)?;
        let mut images = layout.images()?;
        match (images.as_mut_slice(), name) {
            ([only], Some(name)) => only.names = vec![name.clone()],
            (_, None) => {}
            (many, Some(name)) => {
                let count = many.len();
                return Err(ImageError::Malformed(format!("{count} images can't all be named {name}")));
            }
        }
        images.into_iter().map(|image| self.add(&image, |n| layout.layer(&image.layers[n]))).collect()
    }

    /// Adds an image whose layers' archives can be opened by their numbers.
    pub fn add<R: Read>(
        &self,
        image: &FoundImage,
        open: impl Fn(usize) -> Result<R, ImageError>,
    ) -> Result<Image, ImageError> {
        let _lock = self.lock()?;
        let mut layers = Vec::with_capacity(image.diff_ids.len());
        for (number, diff_id) in image.diff_ids.iter().enumerate() {
            let size = match self.size_of(diff_id)? {
                Some(size) => size,
                None => self.add_layer(diff_id, open(number)?)?,
            };
            layers.push(StoredLayer { diff_id: diff_id.clone(), size });
        }
        let id = Digest::of(&image.config);
        let path = self.config_path(&id);
        fs::write(&path, &image.config).map_err(system("write", &path))?;
        let root = File::open(&self.dir).map_err(system("open", &self.dir))?;
        sync(&root).map_err(system("sync", &self.dir))?;
        self.enlist(&id, image, layers)?;
        self.image(&id).and_then(|image| image.ok_or_else(|| ImageError::Unknown(id.to_string())))
    }

    fn enlist(&self, id: &Digest, image: &FoundImage, layers: Vec<StoredLayer>) -> Result<(), ImageError> {
        let mut index = self.index()?;
        let names: BTreeSet<String> = image.names.iter().map(Reference::to_string).collect();
        // A name moves: the image that had it keeps its other names, or none.
        index.images.values_mut().for_each(|other| other.names.retain(|name| !names.contains(name)));
        let added = Timestamp::now();
        let stored =
            index.images.entry(id.to_string()).or_insert(Stored { names: BTreeSet::new(), layers, added });
        stored.names.extend(names);
        self.write_index(&index)
    }

    /// Unpacks a layer beside the others and moves it into place once its digest is right.
    fn add_layer(&self, wanted: &Digest, archive: impl Read) -> Result<u64, ImageError> {
        let scratch = self.scratch()?;
        let failed = |error| ImageError::System {
            attempted: "unpack the layer",
            path: PathBuf::from(wanted.to_string()),
            source: error,
        };
        let plain = archive::decompress(archive).map_err(failed)?;
        let mut plain = Digesting::new(plain);
        unpack(&mut plain, &scratch.0).map_err(failed)?;
        let (found, size) = plain.finish().map_err(failed)?;
        if found != *wanted {
            let what = "the unpacked layer".to_owned();
            return Err(ImageError::Digest { what, found, wanted: wanted.clone() });
        }
        let place = self.layers().join(layer_name(wanted));
        // One that no index names: left by a load that was cut short.
        remove_tree(&place)?;
        fs::rename(&scratch.0, &place).map_err(system("move the layer to", &place))?;
        Ok(size)
    }

    /// The size of a layer that an image of the index already has.
    fn size_of(&self, diff_id: &Digest) -> Result<Option<u64>, ImageError> {
        let index = self.index()?;
        let mut layers = index.images.values().flat_map(|image| &image.layers);
        let same = layers.find(|layer| layer_name(&layer.diff_id) == layer_name(diff_id));
        match same {
            Some(layer) if layer.diff_id != *diff_id => {
                Err(ImageError::Malformed(format!("{} and {diff_id} begin alike", layer.diff_id)))
            }
            found => Ok(found.map(|layer| layer.size)),
        }
    }

    /// The image with this name, or with this identity or the beginning of one.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let index = self.index()?;
        if let Some(id) = by_identity(&index, name) {
            return self.image_of(&index, &id);
        }
        let wanted = name.parse::<Reference>()?.to_string();
        let found = index.images.iter().find(|(_, stored)| stored.names.contains(&wanted));
        let Some((id, _)) = found else { return Ok(None) };
        self.image_of(&index, id)
    }

    fn image(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        self.image_of(&self.index()?, &id.to_string())
    }

    fn image_of(&self, index: &Index, id: &str) -> Result<Option<Image>, ImageError> {
        let Some(stored) = index.images.get(id) else { return Ok(None) };
        let id: Digest = id.parse().map_err(ImageError::Malformed)?;
        let path = self.config_path(&id);
        let bytes = fs::read(&path).map_err(system("read", &path))?;
        let file: ConfigFile = parse(&bytes, &path)?;
        Ok(Some(Image {
            names: stored.names.iter().cloned().collect(),
            config: file.config,
            layers: stored.layers.iter().map(|layer| layer_name(&layer.diff_id)).collect(),
            size: stored.layers.iter().map(|layer| layer.size).sum(),
            added: stored.added,
            id,
        }))
    }

    /// All images, by identity.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let index = self.index()?;
        let images = index.images.keys().map(|id| self.image_of(&index, id));
        images.filter_map(Result::transpose).collect()
    }

    /// Removes a name, and with an image's last name, or by its identity, the image and the layers that no
    /// other image has. Returns whether the image itself went.
    pub fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let _lock = self.lock()?;
        let image = self.find(name)?.ok_or_else(|| ImageError::Unknown(name.to_owned()))?;
        let mut index = self.index()?;
        let id = image.id.to_string();
        let named = name.parse::<Reference>().map(|name| name.to_string()).unwrap_or_default();
        if let Some(stored) = index.images.get_mut(&id)
            && stored.names.remove(&named)
            && !stored.names.is_empty()
        {
            return self.write_index(&index).map(|()| false);
        }
        self.discard(&mut index, &image.id, name).map(|()| true)
    }

    /// Removes the images that no container uses, the longest unused first, until `enough` says so. One that has just
    /// come, or was just used, is kept: somebody may be about to use it.
    /// Returns the bytes of the layers removed.
    pub fn collect(&self, enough: impl Fn() -> bool) -> Result<u64, ImageError> {
        let _lock = self.lock()?;
        let mut images = self.list()?;
        images.sort_by_key(|image| (!image.names.is_empty(), self.last_used(image)));
        let mut freed = 0;
        for image in images {
            if !image.names.is_empty() && (self.is_fresh(&image) || enough()) {
                break;
            }
            let mut index = self.index()?;
            match self.discard(&mut index, &image.id, &image.id.to_string()) {
                Ok(()) => freed += image.size,
                Err(ImageError::InUse(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(freed)
    }

    /// Collects if less than 15 % of the disk is free, until 20 % are (upstream's thresholds).
    pub fn collect_if_full(&self) -> Result<u64, ImageError> {
        let free = || {
            let disk = nix::sys::statvfs::statvfs(&self.dir);
            disk.map_or(1.0, |disk| disk.blocks_available() as f64 / disk.blocks().max(1) as f64)
        };
        if free() >= FREE_WANTED.0 { Ok(0) } else { self.collect(|| free() >= FREE_WANTED.1) }
    }

    /// When a container was last made from it.
    fn last_used(&self, image: &Image) -> Option<std::time::SystemTime> {
        fs::metadata(self.config_path(&image.id)).and_then(|meta| meta.modified()).ok()
    }

    fn is_fresh(&self, image: &Image) -> bool {
        let age = self.last_used(image).and_then(|used| used.elapsed().ok());
        age.is_none_or(|age| age < LEAST_AGE)
    }

    /// The index first, so that nothing is listed of which a part is missing.
    fn discard(&self, index: &mut Index, id: &Digest, name: &str) -> Result<(), ImageError> {
        let path = self.config_path(id);
        let file = File::open(&path).map_err(system("open", &path))?;
        let _unused = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| ImageError::InUse(name.to_owned()))?;
        let Some(gone) = index.images.remove(&id.to_string()) else { return Ok(()) };
        self.write_index(index)?;
        fs::remove_file(&path).map_err(system("remove", &path))?;
        let kept: BTreeSet<&Digest> =
            index.images.values().flat_map(|image| &image.layers).map(|layer| &layer.diff_id).collect();
        let mut orphans = gone.layers.iter().filter(|layer| !kept.contains(&layer.diff_id));
        orphans.try_for_each(|layer| remove_tree(&self.layers().join(layer_name(&layer.diff_id))))
    }

    fn index(&self) -> Result<Index, ImageError> {
        let path = self.dir.join("index.json");
        match read(&path) {
            Ok(index) => Ok(index),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(system("read", &path)(error)),
        }
    }

    fn write_index(&self, index: &Index) -> Result<(), ImageError> {
        let path = self.dir.join("index.json");
        write_durably(&path, index).map_err(system("write", &path))
    }

    fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(system("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| system("lock", &path)(errno.into()))
    }

    /// A directory for what isn't whole yet.
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        let path = self.dir.join("tmp").join(format!("{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).map_err(system("make", &path))?;
        Ok(Scratch(path))
    }
}

/// As Docker takes them: the whole identity, or at least its first twelve digits.
fn by_identity(index: &Index, name: &str) -> Option<String> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return None;
    }
    let begin = format!("sha256:{digits}");
    let mut fitting = index.images.keys().filter(|id| id.starts_with(&begin));
    fitting.next().filter(|_| fitting.next().is_none()).cloned()
}

fn layer_name(diff_id: &Digest) -> String {
    diff_id.hex()[..LAYER_DIGITS].to_owned()
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(system("remove", path)),
    }
}
