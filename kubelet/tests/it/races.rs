//! Who may write to a volume against who mounts a part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kubelet::container::Mount;
use kubelet::runtime::Runtime;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::containers::{script, world};
use crate::native::{end, text};

/// Who may write to a volume swaps the part of it that others mount for a link that leads out.
#[tokio::test]
async fn a_part_of_a_volume_that_turns_into_a_link_leads_nowhere_else() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    world.make_sandbox().await;
    let (host, outside) = (world.dir.path().join("volume"), world.dir.path().join("outside"));
    std::fs::create_dir_all(host.join("door")).expect("mkdir");
    std::fs::create_dir_all(&outside).expect("mkdir");
    std::fs::write(host.join("door/file"), "mine\n").expect("write");
    std::fs::write(outside.join("file"), "precious\n").expect("write");
    std::os::unix::fs::symlink(&outside, host.join("link")).expect("symlink");
    let done = Arc::new(AtomicBool::new(false));
    let (swapper, volume) = (done.clone(), host.clone());
    let swapping = std::thread::spawn(move || {
        let (door, link) = (volume.join("door"), volume.join("link"));
        while !swapper.load(Ordering::Relaxed) {
            renameat2(AT_FDCWD, &door, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).expect("swapped");
        }
    });
    let mut ran = 0;
    for attempt in 0..60 {
        let mut config = world.config(attempt, &script("cat /data/file; echo x > /data/new"));
        let mount = Mount { sub_path: Some("door".into()), ..Mount::new(&host, "/data") };
        config.isolation.as_mut().expect("isolated").mounts.push(mount);
        let log = world.log(&config);
        let id = world.runtime.create_container(config).await.expect("create");
        // While it is a link there is no such directory in the volume.
        if world.runtime.start_container(&id).await.is_ok() {
            end(&mut world.events).await;
            assert_eq!(text(&log), "mine\n");
            ran += 1;
        }
    }
    assert!(ran > 0, "no container got its part");
    done.store(true, Ordering::Relaxed);
    swapping.join().expect("no panic");
    assert_eq!(std::fs::read_dir(&outside).expect("list").count(), 1);
    assert_eq!(std::fs::read_to_string(outside.join("file")).expect("read"), "precious\n");
}
