//! Builds a container's root, seen by no one but the container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::{chdir, fchdir, pivot_root, symlinkat};

use crate::confined::{Confined, by_descriptor, relative};
use crate::container::mount::{Tree, fresh, open_host, set_attributes};
use crate::container::{Isolation, Mount, layers};

/// Directories of a container's run.
#[derive(Clone, Debug)]
pub struct RunDirs {
    /// What the container has written.
    pub upper: PathBuf,
    /// Overlayfs' own.
    pub work: PathBuf,
    /// Where the root is mounted; on the host it stays empty.
    pub root: PathBuf,
    /// Where an image that is seen as a directory is mounted for a moment; it stays empty, too.
    pub volume: PathBuf,
}

impl RunDirs {
    /// Below the run's directory.
    pub fn of(run: &Path) -> Self {
        let [upper, work, root, volume] = ["upper", "work", "root", "volume"].map(|name| run.join(name));
        Self { upper, work, root, volume }
    }
}

/// Where a container without shared memory of its pod finds its own.
const SHARED_MEMORY: &str = "mode=1777,size=65536k";
/// Device files of every container.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links in `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// What tells of the host, or changes it; hidden.
pub const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];
/// What may be read and not written.
pub const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// What went wrong, on what.
fn about(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Builds the root and makes it the process's own. The process is in a mount namespace that nobody else is
/// in, and in all others that the container is to have.
pub fn enter(isolation: &Isolation, dirs: &RunDirs) -> Result<(), String> {
    let root = build(isolation, dirs)?;
    let built = root.lookup(Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let built = built.map_err(about("open the new root"))?;
    if isolation.read_only_root {
        set_attributes(built.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)
            .map_err(about("make the root read-only"))?;
    }
    become_root(&built).map_err(about("enter the new root"))
}

fn build(isolation: &Isolation, dirs: &RunDirs) -> Result<Confined, String> {
    // What is mounted here must not be seen by the host; what the host mounts may be seen here.
    let all = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, all, None::<&str>)
        .map_err(|errno| about("part from the host's mounts")(errno.into()))?;
    overlay(isolation, dirs).map_err(about("mount the image"))?;
    let root = Confined::open(&dirs.root).map_err(about("open the root"))?;
    system_mounts(isolation, &root)?;
    // Written before what they stand in is made read-only.
    for (name, value) in &isolation.sysctls {
        // A slash is a dot within a name, such as that of an interface.
        let swapped = name.chars().map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        });
        let path = Path::new("/proc/sys").join(swapped.collect::<String>());
        write_inside(&root, &path, value).map_err(about(format_args!("set the sysctl {name}")))?;
    }
    for mount in &isolation.mounts {
        let shown = match &mount.image {
            Some(image) => layers::show(&root, mount, &image.layers, &dirs.volume),
            None => bind(&root, mount),
        };
        shown.map_err(about(described(mount)))?;
    }
    if !isolation.privileged && !isolation.unmasked {
        mask(&root)?;
    }
    Ok(root)
}

fn described(mount: &Mount) -> String {
    let source = match &mount.image {
        Some(image) => format!("image {}", image.id),
        None => mount.source.display().to_string(),
    };
    let part = mount.sub_path.as_ref().map(|part| format!("{} of ", part.display())).unwrap_or_default();
    format!("mount {part}{source} at {}", mount.target.display())
}

/// Layers are named relative to their directory, so that many fit into the kernel's page of options; the
/// other two by descriptor, so that no character of their paths means anything.
fn overlay(isolation: &Isolation, dirs: &RunDirs) -> io::Result<()> {
    for dir in [&dirs.upper, &dirs.work, &dirs.root] {
        // A start of the same run that failed: overlayfs takes no directory that was mounted as volatile.
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(dir)?,
        }
    }
    let (upper, work) = (open_host(&dirs.upper)?, open_host(&dirs.work)?);
    chdir(&isolation.layers_dir)?;
    let mut lower: Vec<&str> = isolation.layers.iter().map(String::as_str).collect();
    lower.reverse();
    if let Some(top) = lower.first() {
        copy_root_attributes(Path::new(top), &dirs.upper)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lower.join(":"),
        by_descriptor(upper.as_fd()).display(),
        by_descriptor(work.as_fd()).display()
    );
    // Devices of an image do not work: those of /dev are mounted one by one.
    let flags = if isolation.privileged { MsFlags::empty() } else { MsFlags::MS_NODEV };
    Ok(nix::mount::mount(Some("overlay"), &dirs.root, Some("overlay"), flags, Some(options.as_str()))?)
}

/// The root directory itself is that of the upper layer.
fn copy_root_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::metadata(from)?;
    std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, meta.permissions())
}

fn system_mounts(isolation: &Isolation, root: &Confined) -> Result<(), String> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let mount = |kind: &str, target: &str, flags: MsFlags, options: &str| {
        let dir = own_dir(root, target);
        dir.and_then(|dir| fresh(kind, dir.as_fd(), flags, options))
            .map_err(about(format_args!("mount /{target}")))
    };
    if isolation.host_pid {
        let host = Mount { devices: false, ..Mount::new("/proc", "/proc") };
        bind(root, &host).map_err(about("mount /proc"))?;
    } else {
        mount("proc", "proc", plain, "")?;
    }
    let devices = if isolation.privileged { MsFlags::empty() } else { MsFlags::MS_NODEV };
    mount("tmpfs", "dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME | devices, "mode=755,size=65536k")?;
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount("devpts", "dev/pts", terminals, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    mount("mqueue", "dev/mqueue", plain, "")?;
    match shared_memory(isolation) {
        Some(shared) => bind(root, &Mount::new(shared, "/dev/shm")).map_err(about("mount /dev/shm"))?,
        None => mount("tmpfs", "dev/shm", plain, SHARED_MEMORY)?,
    }
    device_files(root, isolation.privileged).map_err(about("fill /dev"))?;
    let sys = if isolation.privileged { plain } else { plain | MsFlags::MS_RDONLY };
    mount("sysfs", "sys", sys, "")?;
    // Told where it fits: a container without it works all the same.
    if crate::container::cgroup::is_unified() {
        let _ = mount("cgroup2", "sys/fs/cgroup", sys, "");
    }
    Ok(())
}

fn shared_memory(isolation: &Isolation) -> Option<PathBuf> {
    let of_pod = isolation.sandbox.join("shm");
    if isolation.host_ipc {
        Some(PathBuf::from("/dev/shm"))
    } else {
        Some(of_pod).filter(|path| path.is_dir())
    }
}

/// A directory that is one: an image that has a link here would have it mounted somewhere else.
fn own_dir(root: &Confined, path: &str) -> io::Result<OwnedFd> {
    root.make_dir(Path::new(path), Mode::from_bits_truncate(0o755))?;
    root.lookup(Path::new(path), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
}

fn device_files(root: &Confined, privileged: bool) -> io::Result<()> {
    let dev = root.lookup(Path::new("dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    if privileged {
        copy_devices(Path::new("/dev"), root)?;
    } else {
        for name in DEVICES {
            let host = Path::new("/dev").join(name);
            bind(root, &Mount { devices: true, ..Mount::new(&host, &host) })?;
        }
    }
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// All device files of the host, by their numbers.
fn copy_devices(dir: &Path, root: &Confined) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, meta) = (entry.path(), entry.metadata()?);
        let kind = meta.file_type();
        let own = ["pts", "shm", "mqueue", "fd"].iter().any(|own| path == Path::new("/dev").join(own));
        if kind.is_dir() && !own {
            copy_devices(&path, root)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            let inside = path.strip_prefix("/").unwrap_or(&path);
            let place = root.place(inside)?;
            let kind = if kind.is_char_device() { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
            let mode = Mode::from_bits_truncate(meta.mode() & 0o7777);
            mknodat(&place.parent, &*place.name, kind, mode, meta.rdev())?;
        }
    }
    Ok(())
}

/// Shows something of the host inside.
pub fn bind(root: &Confined, mount: &Mount) -> io::Result<()> {
    let source = match &mount.sub_path {
        None => open_host(&mount.source)?,
        // Nothing can be made in an image.
        Some(part) if mount.image.is_some() => Confined::open(&mount.source)?.lookup(part, OFlag::O_PATH)?,
        Some(part) => open_part(&mount.source, part)?,
    };
    let is_dir = fs::metadata(by_descriptor(source.as_fd()))?.is_dir();
    let target = target(root, &mount.target, is_dir)?;
    let tree = Tree::copy_of(source.as_fd())?;
    if !mount.follows_host {
        tree.make_private()?;
    }
    if !mount.devices {
        tree.set(libc::MOUNT_ATTR_NODEV, false)?;
    }
    if mount.read_only {
        tree.set(libc::MOUNT_ATTR_RDONLY, mount.recursive)?;
    }
    tree.attach(target.as_fd())
}

/// A part of a volume: links in it lead nowhere but into the volume itself. A missing one is made with the
/// volume's own mode.
fn open_part(volume: &Path, part: &Path) -> io::Result<OwnedFd> {
    let volume = Confined::open(volume)?;
    match volume.lookup(part, OFlag::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = fs::metadata(by_descriptor(volume.as_fd()))?.mode() & 0o7777;
            volume.make_dir(part, Mode::from_bits_truncate(mode))
        }
        found => found,
    }
}

/// Where something is mounted; made where missing.
fn target(root: &Confined, path: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let inside = relative(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let inside = inside.ok_or_else(|| io::Error::other("nothing can be mounted on the root itself"))?;
    if is_dir {
        return root.make_dir(&inside, Mode::from_bits_truncate(0o755));
    }
    match root.lookup(&inside, OFlag::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let place = root.place(&inside)?;
    // A link that leads nowhere makes way.
    place.clear()?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&place.parent, &*place.name, flags, Mode::from_bits_truncate(0o644))?;
    root.lookup(&inside, OFlag::O_PATH)
}

fn write_inside(root: &Confined, path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    let inside = path.strip_prefix("/").unwrap_or(path);
    File::from(root.lookup(inside, OFlag::O_WRONLY)?).write_all(value.as_bytes())
}

fn mask(root: &Confined) -> Result<(), String> {
    for path in MASKED {
        let Some(target) = existing(root, path)? else { continue };
        let is_dir = fs::metadata(by_descriptor(target.as_fd())).is_ok_and(|meta| meta.is_dir());
        let hidden = match is_dir {
            true => fresh("tmpfs", target.as_fd(), MsFlags::MS_RDONLY, "size=0k"),
            false => open_host(Path::new("/dev/null"))
                .and_then(|null| Tree::copy_of(null.as_fd())?.attach(target.as_fd())),
        };
        hidden.map_err(about(format_args!("mask /{path}")))?;
    }
    for path in READ_ONLY {
        let Some(target) = existing(root, path)? else { continue };
        let done = Tree::copy_of(target.as_fd()).and_then(|tree| {
            tree.set(libc::MOUNT_ATTR_RDONLY, true)?;
            tree.attach(target.as_fd())
        });
        done.map_err(about(format_args!("make /{path} read-only")))?;
    }
    Ok(())
}

fn existing(root: &Confined, path: &str) -> Result<Option<OwnedFd>, String> {
    match root.lookup(Path::new(path), OFlag::O_PATH) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("look up /{path}: {error}")),
    }
}

/// The old root is put over the new one and taken off: no directory is needed for it.
/// Makes a mounted directory the root, and nothing else reachable.
pub fn become_root(root: &OwnedFd) -> io::Result<()> {
    let old = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    fchdir(root)?;
    pivot_root(".", ".")?;
    fchdir(&old)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    debug_assert!(root.as_raw_fd() >= 0);
    Ok(chdir("/")?)
}
