//! A containerd of a test's own, with its own root, state, socket and network: Debian's, with runc and the
//! reference network plugins. When it is dropped, nothing of it is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Ran, eventually, image};

/// Where Debian's containernetworking-plugins puts them.
const PLUGINS: &str = "/usr/lib/cni";
/// The namespace in which the Container Runtime Interface keeps its things.
const NAMESPACE: &str = "k8s.io";

/// A running containerd.
pub struct Containerd {
    dir: tempfile::TempDir,
    process: Option<Child>,
    bridge: String,
}

impl Containerd {
    /// Starts one; `None`, said loudly, where it can't be: it needs root, and `.ci/setup` installs it.
    ///
    /// # Panics
    /// It is installed and doesn't start.
    pub fn start() -> Option<Self> {
        Self::start_as(None)
    }

    /// As [`Containerd::start`], with a streaming server that speaks HTTPS by this certificate and key.
    ///
    /// # Panics
    /// It is installed and doesn't start.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Option<Self> {
        Self::start_as(Some((certificate, key)))
    }

    fn start_as(tls: Option<(&Path, &Path)>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("NOT TESTED: containerd needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("amoeba-cri-").tempdir().expect("a directory");
        // Names and addresses that another test's containerd hasn't got.
        let number = std::process::id() % 65_000;
        let bridge = format!("cri{number}");
        let mut containerd = Self { dir, process: None, bridge };
        containerd.configure(number, tls);
        containerd.run();
        let pause = containerd.path().join("pause");
        containerd.import(&image::busybox(&pause, "pause:1", "exec sleep 2147483647"));
        Some(containerd)
    }

    fn configure(&self, number: u32, tls: Option<(&Path, &Path)>) {
        let dir = self.path();
        let at = |name: &str| dir.join(name).display().to_string();
        let unused = ["btrfs", "zfs", "aufs", "devmapper"]
            .map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""))
            .join(", ");
        let streaming = tls.map_or(String::new(), |(certificate, key)| {
            format!(
                "enable_tls_streaming = true\n[plugins.\"io.containerd.grpc.v1.cri\".x509_key_pair_streaming]\n\
                 tls_cert_file = {certificate:?}\ntls_key_file = {key:?}\n"
            )
        });
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{unused}]\n\
             [grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"docker.io/library/pause:1\"\n\
             restrict_oom_score_adj = true\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             {streaming}[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n\
             default_runtime_name = \"runc\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = false\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {PLUGINS:?}\nconf_dir = {:?}\n",
            at("root"),
            at("state"),
            self.socket().display().to_string(),
            at("cni"),
        );
        fs::create_dir_all(dir.join("cni")).expect("a directory");
        fs::create_dir_all(dir.join("pause")).expect("a directory");
        fs::write(dir.join("config.toml"), config).expect("a file");
        let (high, low) = (number / 256, number % 256);
        let network = serde_json::json!({
            "cniVersion": "0.4.0", "name": self.bridge, "plugins": [{
                "type": "bridge", "bridge": self.bridge, "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": at("addresses"),
                    "ranges": [[{"subnet": format!("172.{}.{low}.0/24", 16 + high % 16)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        fs::write(dir.join("cni/10-test.conflist"), network.to_string()).expect("a file");
    }

    /// Starts the process and waits until it answers.
    ///
    /// # Panics
    /// It isn't there, or doesn't answer.
    pub fn run(&mut self) {
        let log = fs::File::create(self.path().join("log")).expect("a file");
        let process = Command::new("containerd")
            .args(["--log-level", "warn", "--config"])
            .arg(self.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed (.ci/setup does it)");
        self.process = Some(process);
        eventually("containerd answers", || self.ctr(&["version"]).ok.then_some(()));
    }

    /// Kills the process; its containers run on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Its own directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.path().join("containerd.sock")
    }

    /// What a node agent's flag says.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Runs its own command.
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", NAMESPACE]).args(arguments);
        command.output().expect("ctr is installed").into()
    }

    /// Takes up an image.
    ///
    /// # Panics
    /// It can't.
    pub fn import(&self, archive: &Path) {
        let done = self.ctr(&["images", "import", archive.to_str().expect("UTF-8 path")]);
        assert!(done.ok, "{}{}", done.out, done.err);
    }

    /// The containers that it has, those of sandboxes included.
    pub fn containers(&self) -> Vec<String> {
        self.ctr(&["containers", "ls", "-q"]).out.lines().map(str::to_owned).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A failed test leaves containers behind: each supervisor ends with its own.
        let tasks = self.ctr(&["tasks", "ls", "-q"]).out;
        for task in tasks.lines() {
            self.ctr(&["tasks", "kill", "--all", "--signal", "SIGKILL", task]);
        }
        for container in self.containers() {
            self.ctr(&["tasks", "delete", "--force", &container]);
        }
        self.kill();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in own.filter(|place| Path::new(place).starts_with(self.path())) {
            let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
