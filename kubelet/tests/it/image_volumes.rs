//! Images that containers see as directories.

use std::time::Duration;

use kubelet::container::{Mount, MountedImage};
use kubelet::image::{Image, ImageStore};
use kubelet::runtime::{ContainerConfig, Runtime};

use crate::containers::{script, world};
use crate::native::{PATIENCE, end};
use crate::tars::{Tar, docker_archive};

#[tokio::test]
async fn an_image_is_seen_as_a_directory_that_nobody_writes_to() {
    let Some(mut world) = world("{}", "{containers: [{name: main, securityContext: {privileged: true}}]}")
    else {
        return;
    };
    let store = world.runtime.image_store().expect("native").clone();
    let (base, top) = (Tar::new().dir("d", 0o755).file("d/gone", 0o644, b"x"), Tar::new().dir("d", 0o755));
    let base = base.file("d/kept", 0o644, b"below").link("d/door", "/etc").finish();
    let top = top.file("d/.wh.gone", 0o644, b"").file("run", 0o755, b"#!/bin/sh\necho ran\n").finish();
    let data = load(&store, "data:1", &[base, top]);
    let flat = load(&store, "flat:1", &[Tar::new().dir("d", 0o755).finish()]);
    let empty = load(&store, "empty:1", &[]);
    let shown = |image: &Image, part: Option<&str>, target: &str| Mount {
        read_only: true,
        sub_path: part.map(Into::into),
        image: Some(mounted(&store, image)),
        ..Mount::new(store.layers(), target)
    };
    let text = "ls /data /data/d; cat /part/kept /one; echo; /data/run; ls /flat/d /empty | wc -l; exec 2>/dev/null; touch /data/x || echo ro; \
                mount -o remount,rw /data; touch /data/x || echo still ro";
    let mut config = world.config(0, &script(text));
    let mounts = &mut config.isolation.as_mut().expect("isolated").mounts;
    mounts.extend([
        shown(&data, None, "/data"),
        shown(&data, Some("d"), "/part"),
        shown(&data, Some("d/kept"), "/one"),
    ]);
    mounts.extend([shown(&flat, None, "/flat"), shown(&empty, None, "/empty")]);
    let refused = config.clone();
    let (exit, said) = world.run(config).await;
    let want = "/data:\nd\nrun\n\n/data/d:\ndoor\nkept\nbelowbelow\nran\n3\nro\nstill ro\n";
    assert_eq!((exit.code, said.as_str()), (0, want));
    for part in ["none", "d/door/passwd"] {
        let mut config = ContainerConfig { attempt: 1, ..refused.clone() };
        config.isolation.as_mut().expect("isolated").mounts = vec![shown(&data, Some(part), "/part")];
        let id = world.runtime.create_container(config).await.expect("create");
        let error = world.runtime.start_container(&id).await.expect_err("no such part").chain();
        let want = format!("mount {part} of image {} at /part: No such file or directory", data.id);
        assert!(error.starts_with(&want), "{error}");
    }
}

#[tokio::test]
async fn an_image_that_is_mounted_stays() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let store = world.runtime.image_store().expect("native").clone();
    let data = load(&store, "data:1", &[Tar::new().file("file", 0o644, b"here").finish()]);
    let mut config = world.config(0, &script("exec busybox sleep 1000"));
    let image = Some(mounted(&store, &data));
    let mount = Mount { read_only: true, image, ..Mount::new(store.layers(), "/data") };
    config.isolation.as_mut().expect("isolated").mounts.push(mount);
    world.make_sandbox().await;
    let next = ContainerConfig { attempt: 1, ..config.clone() };
    let id = world.runtime.create_container(config).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    assert_eq!(store.collect(|| false).expect("collected"), 0);
    let error = store.remove("data:1").expect_err("in use");
    assert!(error.to_string().contains("in use by a container"), "{error}");
    let cat = ["/bin/busybox", "cat", "/data/file"].map(str::to_owned);
    let said = world.runtime.exec_sync(&id, &cat, PATIENCE).await.expect("exec");
    assert_eq!(said.output, b"here");
    world.runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    end(&mut world.events).await;
    assert!(store.remove("data:1").expect("nobody uses it"));
    let id = world.runtime.create_container(next).await.expect("create");
    let error = world.runtime.start_container(&id).await.expect_err("without its volume").chain();
    assert!(error.starts_with(&format!("image {} was removed", data.id)), "{error}");
}

fn load(store: &ImageStore, name: &str, layers: &[Vec<u8>]) -> Image {
    let archive = docker_archive(name, "{}", layers);
    store.load_archive(archive.as_slice(), None).expect("load").remove(0)
}

fn mounted(store: &ImageStore, image: &Image) -> MountedImage {
    let file = store.config_path(&image.id);
    MountedImage { id: image.id.to_string(), file, layers: image.layers.clone() }
}
