//! Images as they come from outside, friendly and hostile.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kubelet::image::unpack::unpack;
use kubelet::image::{Digest, Image, ImageStore};
use proptest::prelude::*;

use crate::tars::{Tar, docker_archive, oci_archive};

fn store(dir: &Path) -> ImageStore {
    ImageStore::open(&dir.join("images")).expect("open")
}

fn layer() -> Vec<u8> {
    Tar::new().dir("bin", 0o755).file("bin/tool", 0o4755, b"#!/bin/sh\n").link("bin/alias", "tool").finish()
}

fn file_of(store: &ImageStore, image: &Image, path: &str) -> PathBuf {
    store.layers().join(image.layers.last().expect("a layer")).join(path)
}

#[test]
fn archives_of_all_forms_are_the_same_image() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let docker = docker_archive("web:1", r#"{"Cmd":["/bin/tool"]}"#, &[layer()]);
    let oci = oci_archive("localhost/web:2", r#"{"Cmd":["/bin/tool"]}"#, &[layer()]);
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzipped.write_all(&docker).expect("gzip");
    let store = store(dir.path());
    let load = |bytes: &[u8]| store.load_archive(bytes, None).expect("load").remove(0);
    let first = load(&docker);
    assert_eq!(first.names, ["docker.io/library/web:1"]);
    assert_eq!(load(&gzipped.finish().expect("gzip")), first);
    let both = load(&oci);
    assert_eq!(both.id, first.id, "the same configuration is the same image");
    assert_eq!(both.names, ["docker.io/library/web:1", "localhost/web:2"]);
    assert_eq!(store.list().expect("list").len(), 1);
    let tool = fs::metadata(file_of(&store, &both, "bin/tool")).expect("unpacked");
    assert_eq!(tool.mode() & 0o7777, 0o4755);
    assert_eq!(store.find("web:1").expect("find"), Some(both.clone()));
    assert_eq!(store.find(&both.id.hex()[..12]).expect("find"), Some(both));
    assert_eq!(store.find("web:3").expect("find"), None);
}

#[test]
fn a_name_moves_and_an_image_goes_with_its_last_one() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(dir.path());
    let shared = Tar::new().file("shared", 0o644, b"s").finish();
    let own = |text: &str| Tar::new().file("own", 0o644, text.as_bytes()).finish();
    let load = |layers: &[Vec<u8>]| {
        store.load_archive(docker_archive("web:1", "{}", layers).as_slice(), None).expect("load").remove(0)
    };
    let old = load(&[shared.clone(), own("old")]);
    let new = load(&[shared, own("new")]);
    assert_eq!(store.find("web:1").expect("find").map(|image| image.id), Some(new.id.clone()));
    assert_eq!(store.find(old.id.hex()).expect("find").expect("still there").names, [""; 0]);
    assert_eq!(store.collect(|| true).expect("collect"), old.size, "what has no name goes");
    assert!(store.layers().join(&new.layers[0]).exists(), "a layer that another image has stays");
    assert!(!store.layers().join(&old.layers[1]).exists());
    let held = fs::File::open(store.config_path(&new.id)).expect("open");
    let held = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockShared).expect("lock");
    let error = store.remove("web:1").expect_err("in use").to_string();
    assert_eq!(error, "image web:1 is in use by a container: delete its pods first");
    drop(held);
    assert!(store.remove("web:1").expect("remove"));
    assert_eq!(fs::read_dir(store.layers()).expect("list").count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("images/tmp")).expect("list").count(), 0);
}

#[test]
fn an_image_that_has_just_come_is_not_collected() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(dir.path());
    let layer = Tar::new().file("own", 0o644, b"o").finish();
    let image =
        store.load_archive(docker_archive("web:1", "{}", &[layer]).as_slice(), None).expect("load").remove(0);
    assert_eq!(store.collect(|| false).expect("collect"), 0, "somebody may be about to use it");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(121);
    let config = fs::File::options().write(true).open(store.config_path(&image.id)).expect("open");
    config.set_times(fs::FileTimes::new().set_modified(long_ago)).expect("set");
    assert_eq!(store.collect(|| false).expect("collect"), image.size);
    assert_eq!(store.find("web:1").expect("find"), None);
}

#[test]
fn what_a_layer_removes_is_marked_for_overlayfs() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let archive = Tar::new()
        .dir("etc", 0o755)
        .file("etc/.wh.gone", 0o644, b"")
        .dir("var", 0o700)
        .file("var/.wh..wh..opq", 0o644, b"")
        .file("var/.wh..wh.plnk", 0o644, b"")
        .hard_link("var/two", "etc/one")
        .finish();
    let error = unpack(archive.as_slice(), dir.path()).expect_err("etc/one is missing").to_string();
    assert!(error.starts_with("entry \"var/two\": link to \"etc/one\""), "{error}");
    let gone = fs::symlink_metadata(dir.path().join("etc/gone")).expect("a mark");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let names = |path: &str| fs::read_dir(dir.path().join(path)).expect("list").count();
    assert_eq!((names("etc"), names("var")), (1, 0));
    assert_eq!(crate::privileged::attribute(&dir.path().join("var"), c"trusted.overlay.opaque"), b"y");
}

/// Archives that try to reach a directory beside the one they are unpacked into.
fn escapes(outside: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let out = outside.to_str().expect("UTF-8");
    let into = |target: &str| {
        Tar::new().link("door", target).file("door/stolen", 0o644, b"x").dir("door/made", 0o755).finish()
    };
    vec![
        ("dots", Tar::new().raw_file("../outside/stolen", b"x").finish()),
        ("dots within", Tar::new().raw_file("a/../../outside/stolen", b"x").finish()),
        ("absolute", Tar::new().raw_file(&format!("{out}/stolen"), b"x").finish()),
        ("absolute link", into(out)),
        ("relative link", into("../outside")),
        ("link to a link", {
            let tar = Tar::new().link("one", "..").link("two", "one/outside");
            tar.file("two/stolen", 0o644, b"x").finish()
        }),
        ("whiteout through a link", Tar::new().link("door", out).file("door/.wh.kept", 0o644, b"").finish()),
        (
            "opaque through a link",
            Tar::new().link("door", out).file("door/.wh..wh..opq", 0o644, b"").finish(),
        ),
        (
            "hard link out",
            Tar::new().raw_link("mine", &format!("{out}/kept")).file("mine", 0o666, b"x").finish(),
        ),
        ("hard link by dots", Tar::new().raw_link("mine", "../outside/kept").finish()),
        ("hard link through a link", Tar::new().link("door", out).hard_link("mine", "door/kept").finish()),
        (
            "file over a link",
            Tar::new().link("kept", &format!("{out}/kept")).file("kept", 0o666, b"x").finish(),
        ),
        ("mode through a link", Tar::new().link("door", out).dir("door", 0o777).finish()),
        ("removal through a link", {
            let tar = Tar::new().link("door", out).dir("door/..", 0o755);
            tar.file("door/kept", 0o644, b"x").finish()
        }),
    ]
}

/// Unpacks what `archive` makes for a directory that it must not reach; nothing there may change.
fn stays_inside(archive: impl FnOnce(&Path) -> (String, Vec<u8>)) {
    let dir = tempfile::tempdir().expect("tempdir");
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    fs::create_dir(&inside).expect("mkdir");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("kept"), "precious").expect("write");
    let before = fs::metadata(&outside).expect("stat");
    let (name, archive) = archive(&outside);
    let _either_way = unpack(archive.as_slice(), &inside);
    let list = |dir: &Path| -> Vec<_> {
        let mut found: Vec<_> =
            fs::read_dir(dir).expect("list").map(|e| e.expect("entry").file_name()).collect();
        found.sort();
        found
    };
    assert_eq!(list(&outside), ["kept"], "{name}");
    assert_eq!(list(dir.path()), ["inside", "outside"], "{name}");
    assert_eq!(fs::read(outside.join("kept")).expect("read"), b"precious", "{name}");
    let kept = fs::metadata(outside.join("kept")).expect("stat");
    assert_eq!((kept.nlink(), kept.mode() & 0o777), (1, 0o644), "{name}");
    let after = fs::metadata(&outside).expect("stat");
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()), "{name}");
}

#[test]
fn no_archive_reaches_outside() {
    if !crate::privileged::is_root() {
        return;
    }
    for number in 0..escapes(Path::new("/")).len() {
        stays_inside(|outside| {
            let (name, archive) = escapes(outside).swap_remove(number);
            (name.to_owned(), archive)
        });
    }
}

/// A path of parts that lead out sooner or later; from the root, or from the directory that must not be reached.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => prop::sample::select(vec!["door", "a", "kept", "outside", ".wh.kept", ".wh.door", ".wh..wh..opq", "."]),
        1 => Just(".."),
    ];
    let start = prop_oneof![8 => Just(""), 1 => Just("/"), 1 => Just("OUTSIDE/"), 1 => Just("../outside/")];
    (start, prop::collection::vec(part, 1..4)).prop_map(|(start, parts)| start.to_owned() + &parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Directories, files, links and hard links that meet each other in all ways.
    #[test]
    fn no_random_archive_reaches_outside(entries in prop::collection::vec((0..4_u8, path(), path()), 1..10)) {
        if crate::privileged::is_root() {
            stays_inside(|outside| {
                let real = |text: &str| text.replace("OUTSIDE", outside.to_str().expect("UTF-8"));
                let tar = entries.iter().fold(Tar::new(), |tar, (kind, path, target)| match kind {
                    0 => tar.dir(&real(path), 0o777),
                    1 => tar.file(&real(path), 0o666, b"x"),
                    2 => tar.link(&real(path), &real(target)),
                    _ => tar.hard_link(&real(path), &real(target)),
                });
                (format!("{entries:?}"), tar.finish())
            });
        }
    }
}

#[test]
fn contents_that_are_not_what_their_digest_says_are_refused() {
    if !crate::privileged::is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let store = store(dir.path());
    let honest = oci_archive("localhost/a:1", "{}", &[layer()]);
    let digest = Digest::of(&layer());
    let at = honest.windows(10).position(|w| w == b"#!/bin/sh\n").expect("the layer's file");
    let mut forged = honest.clone();
    forged[at] = b'?';
    let error = store.load_archive(forged.as_slice(), None).expect_err("forged").to_string();
    assert!(error.contains(&digest.to_string()) && error.starts_with("the unpacked layer has"), "{error}");
    assert!(store.list().expect("list").is_empty());
    assert_eq!(fs::read_dir(store.layers()).expect("list").count(), 0, "nothing is left of it");
    let error = store.load_archive(&b"no archive at all"[..], None).expect_err("garbage").chain();
    assert!(error.contains("archive"), "{error}");
    let empty = Tar::new().file("readme", 0o644, b"hello").finish();
    let error = store.load_archive(empty.as_slice(), None).expect_err("no image").chain();
    assert!(error.contains("neither manifest.json"), "{error}");
}
