//! An image made on the spot from Debian's busybox: one layer, in the form of `docker save`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Cluster;

/// Installed by `.ci/setup`.
const BUSYBOX: &str = "/bin/busybox";
/// What scripts call by name.
const APPLETS: [&str; 12] =
    ["sh", "cat", "echo", "httpd", "hostname", "id", "ls", "sleep", "readlink", "wget", "touch", "true"];

/// Gives all nodes of a cluster an image with this name, whose command is the script. Returns what is said about it.
pub fn load(cluster: &Cluster, name: &str, script: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = busybox(dir.path(), name, script);
    cluster.a(&format!("image load {}", archive.display()))
}

/// Makes the archive of an image with this name in `dir`. Its command is the script.
pub fn busybox(dir: &Path, name: &str, script: &str) -> PathBuf {
    let (layer, root) = (dir.join("layer"), dir.join("image"));
    fs::create_dir_all(layer.join("bin")).expect("a directory");
    fs::create_dir_all(layer.join("tmp")).expect("a directory");
    fs::create_dir_all(&root).expect("a directory");
    fs::copy(BUSYBOX, layer.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        let _ = symlink("busybox", layer.join("bin").join(applet));
    }
    run("tar", &["-C", text(&layer), "--owner=0", "--group=0", "-cf", text(&root.join("layer.tar")), "."]);
    let sum = run("sha256sum", &[text(&root.join("layer.tar"))]);
    let digest = sum.split(' ').next().expect("a digest");
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", script], "Env": ["FROM=image"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(root.join("config.json"), config.to_string()).expect("a file");
    fs::write(root.join("manifest.json"), manifest.to_string()).expect("a file");
    let archive = dir.join("image.tar");
    run("tar", &["-C", text(&root), "-cf", text(&archive), "."]);
    archive
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().expect(program);
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
