//! Archives made by tests.

use kubelet::image::Digest;
use tar::{Builder, EntryType, Header};

/// An archive in the making.
pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header
    }

    /// Names that the library would refuse are written into the header as they are.
    fn add(mut self, mut header: Header, name: &str, data: &[u8]) -> Self {
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).expect("in memory");
        self
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.add(Self::header(EntryType::Directory, mode, 0), name, b"")
    }

    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.add(Self::header(EntryType::Regular, mode, data.len()), name, data)
    }

    pub fn raw_file(self, name: &str, data: &[u8]) -> Self {
        self.file(name, 0o644, data)
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.pointing(EntryType::Symlink, name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.pointing(EntryType::Link, name, target)
    }

    pub fn raw_link(self, name: &str, target: &str) -> Self {
        self.hard_link(name, target)
    }

    fn pointing(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, name, b"")
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("in memory")
    }
}

/// The configuration file of an image with these layers.
fn config(config: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, ids.join(","));
    format!(r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{rootfs}}}"#).into_bytes()
}

/// As `docker save` writes it.
pub fn docker_archive(name: &str, image: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(image, layers);
    let id = format!("{}.json", Digest::of(&config).hex());
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("\"{n}/layer.tar\"")).collect();
    let manifest = format!(r#"[{{"Config":"{id}","RepoTags":["{name}"],"Layers":[{}]}}]"#, paths.join(","));
    let tar = layers.iter().enumerate().fold(Tar::new().file(&id, 0o644, &config), |tar, (n, layer)| {
        tar.file(&format!("{n}/layer.tar"), 0o644, layer)
    });
    tar.file("manifest.json", 0o644, manifest.as_bytes()).finish()
}

/// An OCI layout in an archive.
pub fn oci_archive(name: &str, image: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let described = |bytes: &[u8]| format!(r#""digest":"{}","size":{}"#, Digest::of(bytes), bytes.len());
    let config = config(image, layers);
    let list: Vec<String> = layers.iter().map(|layer| format!("{{{}}}", described(layer))).collect();
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{{{}}},"layers":[{}]}}"#, described(&config), list.join(","));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{{},"annotations":{{"io.containerd.image.name":"{name}"}}}}]}}"#,
        described(manifest.as_bytes())
    );
    let tar = Tar::new().file("index.json", 0o644, index.as_bytes()).file(&blob(&config), 0o644, &config);
    let tar = layers.iter().fold(tar, |tar, layer| tar.file(&blob(layer), 0o644, layer));
    tar.file(&blob(manifest.as_bytes()), 0o644, manifest.as_bytes()).finish()
}
