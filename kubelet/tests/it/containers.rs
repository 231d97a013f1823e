//! Containers with a root of their own, made from an image of one static program.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kubelet::LogLimits;
use kubelet::container::Mount;
use kubelet::image::{Image, ImageStore};
use kubelet::pod::isolation::{Ground, isolate, limits};
use kubelet::pod::sandbox::{HostFiles, sandbox};
use kubelet::pod::{ContainerName, PodRef};
use kubelet::runtime::native::NativeRuntime;
use kubelet::runtime::{ContainerConfig, Exit, Fetch, ImageUse, PullPolicy, Runtime, RuntimeEvent};
use tokio::sync::mpsc;

use crate::native::{PATIENCE, end, shim_command, text};
use crate::tars::{Tar, docker_archive};

/// Debian's busybox-static; installed by `.ci/setup`.
const BUSYBOX: &str = "/bin/busybox";

/// A runtime with an image, and one pod on it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub runtime: NativeRuntime,
    pub events: mpsc::Receiver<RuntimeEvent>,
    image: Image,
    pub pod: Pod,
}

/// `None` where containers can't be made; says so.
pub fn world(image: &str, spec: &str) -> Option<World> {
    if !crate::privileged::is_root() {
        return None;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let images = ImageStore::open(&dir.path().join("images")).expect("store");
    let busybox = std::fs::read(BUSYBOX).expect("busybox-static is installed");
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
    let base = Tar::new()
        .dir("bin", 0o755)
        .file("bin/busybox", 0o755, &busybox)
        .link("bin/sh", "busybox")
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, passwd)
        .file("etc/group", 0o644, b"www:x:34:\nlogs:x:40:web\n")
        .file("etc/secret", 0o644, b"below")
        .dir("tmp", 0o1777)
        .finish();
    let top =
        Tar::new().dir("etc", 0o755).file("etc/.wh.secret", 0o644, b"").file("top", 0o644, b"above").finish();
    let archive = docker_archive("box:1", image, &[base, top]);
    let image = images.load_archive(archive.as_slice(), None).expect("load").remove(0);
    let runtime = NativeRuntime::new(dir.path(), images, shim_command(), LogLimits::default());
    let events = runtime.events().expect("first reader");
    let text = format!("metadata: {{name: web, namespace: default, uid: u-{}}}\nspec: {spec}", rand_id());
    let pod = serde_yaml::from_str(&text).expect("a pod");
    Some(World { dir, runtime, events, image, pod })
}

/// Groups of the kernel are named after pods: tests of one machine must not meet in one.
fn rand_id() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

impl World {
    pub fn config(&self, attempt: u32, script: &str) -> ContainerConfig {
        let spec = &self.pod.spec.as_ref().expect("a spec").containers[0];
        let words = ["/bin/busybox", "sh", "-c", script].map(str::to_owned);
        let command = if script.is_empty() { Vec::new() } else { words.to_vec() };
        let bare = ContainerConfig {
            pod: PodRef::of(&self.pod),
            container: ContainerName(spec.name.clone()),
            command,
            limits: limits(spec),
            pod_group: Some(kubelet::pod::group::of(&self.pod, Some(64))),
            termination_message_path: Some("/dev/termination-log".into()),
            oom_score_adj: 500,
            working_dir: None,
            ..crate::native::shell(attempt, "")
        };
        let store = self.runtime.image_store().expect("native");
        let ground = Ground {
            image: &self.image,
            image_file: store.config_path(&self.image.id),
            layers_dir: store.layers(),
            sandbox: self.runtime.sandbox_dir(&bare.pod).expect("native"),
            domain: "cluster.local",
        };
        isolate(&self.pod, spec, &ground, bare, Vec::new()).expect("isolated")
    }

    pub async fn make_sandbox(&self) {
        let host = HostFiles { resolv_conf: "nameserver 192.0.2.1\n".to_owned(), ..HostFiles::default() };
        let config = sandbox(&self.pod, &host, "192.0.2.7", None).expect("a name");
        self.runtime.run_sandbox(&config).await.expect("sandbox");
    }

    pub async fn run(&mut self, config: ContainerConfig) -> (Exit, String) {
        self.make_sandbox().await;
        let path = self.log(&config);
        let id = self.runtime.create_container(config).await.expect("create");
        self.runtime.start_container(&id).await.expect("start");
        let exit = end(&mut self.events).await;
        (exit, text(&path))
    }

    pub fn log(&self, config: &ContainerConfig) -> std::path::PathBuf {
        kubelet::runtime::native::log_path(self.dir.path(), &config.pod, &config.container, config.attempt)
    }

    /// What a script says.
    pub async fn say(&mut self, script: &str) -> String {
        let (exit, text) = self.run(self.config(0, script)).await;
        assert_eq!(exit.code, 0, "{text}");
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed test left: processes, mounts.
        let _ = kubelet::power_off(self.dir.path());
    }
}

/// Applets are called by name: the image has no links but `sh`.
const APPLETS: &str = "for a in ls cat id hostname ps stat mount touch mkdir mknod chroot sleep dd grep wc head readlink pwd env cut sort ip unshare sysctl ln rm nproc kill; do alias $a=\"busybox $a\"; done\n";

pub fn script(text: &str) -> String {
    format!("{APPLETS}{text}")
}

#[tokio::test]
async fn a_container_has_the_images_files_and_a_world_of_its_own() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let said = world
        .say(&script(
            "ls /; cat /top; echo; ls /etc/secret 2>&1; hostname; echo pid $$; ps > /all; wc -l < /all; \
             echo new > /made; cat /made; cat /etc/hosts | grep web; cat /etc/resolv.conf /etc/hostname",
        ))
        .await;
    let lines: Vec<&str> = said.lines().collect();
    let want = ["bin", "dev", "etc", "proc", "sys", "tmp", "top"];
    assert_eq!(&lines[..want.len()], want, "nothing of the host is there");
    let rest = lines[want.len()..].join("|");
    let want = "above|ls: /etc/secret: No such file or directory|web|pid 1|3|new|192.0.2.7\tweb|\
                nameserver 192.0.2.1|web";
    assert_eq!(rest, want);
    let layer = world.runtime.image_store().expect("native").layers().join(&world.image.layers[1]);
    assert!(!layer.join("made").exists(), "layers are shared: nobody writes to them");
    assert!(!Path::new("/made").exists());
}

#[tokio::test]
async fn the_kernel_is_out_of_reach() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let said = world
        .say(&script(
            "dd if=/proc/kcore bs=1 count=1 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
             echo x > /proc/sys/kernel/hostname || echo ro; touch /sys/x || echo ro; \
             echo b > /proc/sysrq-trigger || echo ro; \
             mount -t tmpfs t /tmp || echo no mount; mknod /tmp/null c 1 3 && echo x > /tmp/null || echo no device; \
             mknod /dev/own c 1 3 && echo x > /dev/own || echo no device; echo x > /dev/null && echo null; \
             ls /dev/vda /dev/mem 2>/dev/null | wc -l; readlink /dev/fd; grep NoNewPrivs /proc/self/status",
        ))
        .await;
    let said: Vec<&str> =
        said.lines().filter(|line| !line.contains(": can't") && !line.contains("denied")).collect();
    let said: Vec<&str> = said
        .into_iter()
        .filter(|l| {
            !l.starts_with("touch")
                && !l.starts_with("mount:")
                && !l.contains("nonexistent")
                && !l.contains("Read-only")
        })
        .collect();
    let want = [
        "0",
        "0",
        "ro",
        "ro",
        "ro",
        "no mount",
        "no device",
        "no device",
        "null",
        "0",
        "/proc/self/fd",
        "NoNewPrivs:\t0",
    ];
    assert_eq!(said, want);
}

#[tokio::test]
async fn the_image_says_what_to_run_where_and_as_whom() {
    let image = r#"{"Entrypoint":["/bin/busybox","env"],"Cmd":["-i","A=1","/bin/busybox","id"],"User":"web",
        "WorkingDir":"/srv/www","Env":["FROM=image","GREETING=image"]}"#;
    let Some(mut world) = world(image, "{containers: [{name: main}]}") else { return };
    let (exit, said) = world.run(world.config(0, "")).await;
    assert_eq!(
        (exit.code, said.as_str()),
        (0, "uid=33(web) gid=34(www) groups=34(www),40(logs)\n"),
        "{exit:?}"
    );
    let (exit, said) = world
        .run(
            world
                .config(1, &script("pwd; echo $FROM $GREETING $HOME $HOSTNAME; id; touch x && stat -c %U x")),
        )
        .await;
    assert_eq!(exit.code, 0, "{said}");
    assert_eq!(
        said,
        "/srv/www\nimage hello /var/www web\nuid=33(web) gid=34(www) groups=34(www),40(logs)\nweb\n"
    );
}

#[tokio::test]
async fn rights_are_as_the_pod_asks() {
    let spec = "{securityContext: {fsGroup: 77, supplementalGroups: [78], sysctls: [{name: kernel.shm_rmid_forced, value: '1'}]}, \
        containers: [{name: main, securityContext: {runAsUser: 1000, runAsGroup: 1001, allowPrivilegeEscalation: false, \
        readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let said = world
        .say(&script(
            "id -u; id -g; id -G; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
             touch /tmp/x 2>/dev/null || echo read-only; unshare -U true 2>/dev/null || echo no namespaces; \
             cat /proc/sys/kernel/shm_rmid_forced; cat /proc/self/oom_score_adj",
        ))
        .await;
    let zeros = "0".repeat(16);
    let want = format!(
        "1000\n1001\n1001 78 77\nCapEff:\t{zeros}\nCapBnd:\t{zeros}\nNoNewPrivs:\t1\nSeccomp:\t2\nread-only\n\
         no namespaces\n1\n500\n"
    );
    assert_eq!(said.replace("1001 77 78", "1001 78 77"), want);
}

#[tokio::test]
async fn privileged_containers_and_host_namespaces() {
    let spec =
        "{hostPID: true, hostNetwork: true, containers: [{name: main, securityContext: {privileged: true}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let said = world
        .say(&script(&format!(
            "hostname; ls -d /proc/{}; mount -t tmpfs t /tmp && echo mounted; ls /dev/null /dev/ptmx",
            std::process::id()
        )))
        .await;
    let host = nix::unistd::gethostname().expect("a name");
    let want =
        format!("{}\n/proc/{}\nmounted\n/dev/null\n/dev/ptmx\n", host.to_string_lossy(), std::process::id());
    assert_eq!(said, want);
}

#[tokio::test]
async fn mounts_stay_inside_whatever_the_image_and_the_volume_say() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let host = world.dir.path().join("volume");
    std::fs::create_dir_all(host.join("sub")).expect("mkdir");
    std::fs::write(host.join("sub/file"), "in the volume").expect("write");
    std::fs::write(world.dir.path().join("outside"), "precious").expect("write");
    std::os::unix::fs::symlink(world.dir.path().join("outside"), host.join("door")).expect("symlink");
    std::os::unix::fs::symlink("..", host.join("up")).expect("symlink");
    let mut config =
        world.config(0, &script("cat /data/file /one; echo; ls /all; echo x > /data/new || echo ro"));
    let sub = |part: &str, target: &str| Mount { sub_path: Some(part.into()), ..Mount::new(&host, target) };
    let mounts = &mut config.isolation.as_mut().expect("isolated").mounts;
    mounts.push(Mount { read_only: true, ..sub("sub", "/data") });
    mounts.push(sub("sub/file", "/one"));
    // Upwards from the volume's own root is the root itself.
    mounts.push(sub("up/up", "/all"));
    mounts.push(sub("made/deep", "/bin/../../made"));
    let refused = config.clone();
    config.isolation.as_mut().expect("isolated").mounts.pop();
    let (exit, said) = world.run(config).await;
    assert_eq!(exit.code, 0, "{said}");
    let said: Vec<&str> = said.lines().filter(|line| !line.contains("Read-only")).collect();
    assert_eq!(said, ["in the volumein the volume", "door", "sub", "up", "ro"]);
    for (mount, why) in [(None, "leads out of"), (Some(sub("door", "/door")), "No such file")] {
        let mut config = ContainerConfig { attempt: 1, ..refused.clone() };
        let mounts = &mut config.isolation.as_mut().expect("isolated").mounts;
        if let Some(mount) = mount {
            mounts.pop();
            mounts.push(mount);
        }
        let id = world.runtime.create_container(config).await.expect("create");
        let error = world.runtime.start_container(&id).await.expect_err("refused").chain();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(std::fs::read_to_string(world.dir.path().join("outside")).expect("read"), "precious");
}

#[tokio::test]
async fn commands_join_a_container_and_go_with_it() {
    let spec = "{containers: [{name: main, securityContext: {runAsUser: 33}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    world.make_sandbox().await;
    let config = world.config(
        0,
        &script("trap 'echo asked; exit 5' TERM; echo mine > /tmp/mine; while :; do busybox sleep 0.1; done"),
    );
    let id = world.runtime.create_container(config).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    let words = |text: &str| ["/bin/busybox", "sh", "-c", text].map(str::to_owned).to_vec();
    let wait = "while ! [ -s /tmp/mine ]; do :; done; ";
    let asked =
        script(&format!("{wait}cat /tmp/mine; id -un; hostname; ls /proc/1/exe >/dev/null && pwd; exit 3"));
    let done = world.runtime.exec_sync(&id, &words(&asked), PATIENCE).await.expect("exec");
    assert_eq!((done.code, String::from_utf8_lossy(&done.output).as_ref()), (3, "mine\nweb\nweb\n/\n"));
    let late = world.runtime.exec_sync(&id, &words("while :; do :; done"), Duration::from_millis(50)).await;
    assert!(late.is_err(), "{late:?}");
    let error = world.runtime.exec_sync(&id, &["/no/such".to_owned()], PATIENCE).await.expect_err("missing");
    assert!(error.chain().contains("no such file"), "{}", error.chain());
    world.runtime.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(end(&mut world.events).await.code, 5);
}

#[tokio::test]
async fn what_cannot_be_started_is_named_and_leaves_nothing() {
    let Some(world) = world("{}", "{containers: [{name: main}]}") else { return };
    world.make_sandbox().await;
    for (command, why) in [
        ("nothing", "exec: \"nothing\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let config = ContainerConfig { command: vec![command.to_owned()], ..world.config(0, "") };
        let id = world.runtime.create_container(config).await.expect("create");
        assert_eq!(world.runtime.start_container(&id).await.expect_err("not startable").chain(), why);
    }
    let mut config = world.config(1, "true");
    config.isolation.as_mut().expect("isolated").security.user = "nobody".to_owned();
    let id = world.runtime.create_container(config).await.expect("create");
    let error = world.runtime.start_container(&id).await.expect_err("no such user").chain();
    assert_eq!(error, "unable to find user nobody: no matching entries in passwd file");
}

#[tokio::test]
async fn containers_of_a_pod_share_memory_and_an_adopted_one_runs_on() {
    let Some(mut world) = world("{}", "{containers: [{name: main}, {name: other}]}") else { return };
    world.make_sandbox().await;
    let writer = world.config(
        0,
        &script(
            "echo shared > /dev/shm/word; readlink /proc/self/ns/ipc > /dev/shm/ipc; exec busybox sleep 1000",
        ),
    );
    let id = world.runtime.create_container(writer).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    let second = NativeRuntime::new(
        world.dir.path(),
        ImageStore::open(&world.dir.path().join("images")).expect("store"),
        shim_command(),
        LogLimits::default(),
    );
    let mut events = second.events().expect("first reader");
    let found = second.list_containers().await.expect("list");
    assert_eq!(found[0].image_id.as_deref(), Some(world.image.id.to_string().as_str()));
    let error = second.image_store().expect("native").remove("box:1").expect_err("in use").to_string();
    assert!(error.contains("in use"), "{error}");
    let reader = ContainerConfig {
        container: ContainerName("other".to_owned()),
        ..world.config(0, &script("while ! [ -s /dev/shm/ipc ]; do :; done; cat /dev/shm/word; [ $(readlink /proc/self/ns/ipc) = $(cat /dev/shm/ipc) ] && echo same"))
    };
    let (exit, said) = world.run(reader).await;
    assert_eq!((exit.code, said.as_str()), (0, "shared\nsame\n"));
    second.stop_container(&id, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut events).await.code, 137);
    second.remove_sandbox(&PodRef::of(&world.pod)).await.expect("remove");
    assert!(!second.sandbox_dir(&PodRef::of(&world.pod)).expect("native").exists());
    let image = second
        .ensure_image(&world.config(0, ""), &Fetch { policy: PullPolicy::Never, logins: Vec::new() }, &|| {})
        .await;
    assert!(
        image.is_err() || matches!(image, Ok(ImageUse::Plain)),
        "the name asked for is another: {image:?}"
    );
}

#[tokio::test]
async fn last_words_are_read_from_where_the_container_left_them() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let (exit, _) = world.run(world.config(0, "echo -n farewell > /dev/termination-log; exit 4")).await;
    assert_eq!((exit.code, exit.message.as_deref()), (4, Some("farewell")));
}

#[tokio::test]
async fn an_ephemeral_container_sees_its_targets_processes_and_leaves_none() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    world.make_sandbox().await;
    let main = world.config(0, &script("echo $$ > /tmp/own; exec busybox sleep 1000"));
    let debug = |text: &str| ContainerConfig {
        container: ContainerName("debug".to_owned()),
        target: Some(ContainerName("main".to_owned())),
        ..world.config(0, &script(text))
    };
    let early = world.runtime.create_container(debug("true")).await.expect_err("nobody to look at").chain();
    assert_eq!(early, "unable to find target container main");
    let (looks, stays) = (
        debug(
            "cat /proc/1/cmdline | busybox tr '\\0' ' '; echo; cat /proc/1/root/tmp/own; hostname; [ $$ = 1 ] || echo second; \
             [ $(readlink /proc/self/ns/ipc) = $(readlink /proc/1/ns/ipc) ] && echo same; \
             (busybox setsid busybox sleep 1000 >/dev/null 2>&1 </dev/null &); kill -0 1 && echo alive",
        ),
        ContainerConfig { attempt: 1, ..debug("busybox ps | busybox grep -c '[s]leep 1000'") },
    );
    let id = world.runtime.create_container(main).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    wait_for_exec(&world, &id).await;
    let (exit, said) = world.run(looks).await;
    assert_eq!(
        (exit.code, said.as_str()),
        (0, "busybox sleep 1000 \n1\nweb\nsecond\nsame\nalive\n"),
        "{exit:?}"
    );
    // The target itself: what the first one left behind is gone.
    let (exit, said) = world.run(stays).await;
    assert_eq!((exit.code, said.as_str()), (0, "1\n"));
    world.runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut world.events).await.code, 137);
}

/// Until the container's script has become the program that it ends in.
pub async fn wait_for_exec(world: &World, id: &kubelet::pod::ContainerId) {
    let waits = "while ! /bin/busybox grep -q sleep /proc/1/comm /proc/1/cmdline; do :; done";
    let command = ["/bin/busybox", "sh", "-c", waits].map(str::to_owned);
    world.runtime.exec_sync(id, &command, PATIENCE).await.expect("look");
}
