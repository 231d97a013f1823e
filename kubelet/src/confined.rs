//! A directory that no path leads out of: symbolic links, `..` and absolute targets inside it are resolved
//! by the kernel as if the directory were the root (`openat2` with `RESOLVE_IN_ROOT`).
//!
//! Always holds: nothing outside the directory is opened, made or removed through it, even while somebody
//! else swaps directories for links in it; the last part of a path is never followed where something is made.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// The directory.
#[derive(Debug)]
pub struct Confined(OwnedFd);

/// A directory inside, and a name in it that hasn't been looked at.
#[derive(Debug)]
pub struct Place {
    /// The directory, held open: it can't be swapped any more.
    pub parent: OwnedFd,
    /// One path component, neither `.` nor `..`.
    pub name: OsString,
}

impl Place {
    /// A path for calls that take no descriptor. Only its last part is looked up by name.
    pub fn path(&self) -> PathBuf {
        by_descriptor(self.parent.as_fd()).join(&self.name)
    }

    /// Removes what is there, whatever it is; links are removed, not followed. Nothing there is no error.
    pub fn clear(&self) -> io::Result<()> {
        let path = self.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What the kernel calls an open file, for calls that want a path.
pub fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Confined {
    /// Confines to this directory, which is itself looked up as any path.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(dir, flags, Mode::empty())?))
    }

    /// Opens an existing path inside.
    pub fn lookup(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            // EAGAIN: something was renamed meanwhile and `..` could not be resolved safely.
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                done => return Ok(done?),
            }
        }
    }

    /// Reads a whole file inside, as long as it isn't larger than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let file = File::from(self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is not a file", path.display())));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("{} is larger than {limit} bytes", path.display())));
        }
        Ok(bytes)
    }

    /// The directory at this path, made with `mode` and all above it where missing.
    pub fn make_dir(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.lookup(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let parent = match path.parent() {
            Some(parent) => self.make_dir(parent, mode)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        match mkdirat(&parent, name, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.lookup(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// Where something is to be made; the directories above are made where missing.
    pub fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent =
            self.make_dir(path.parent().unwrap_or(Path::new("")), Mode::from_bits_truncate(0o755))?;
        Ok(Place { parent, name })
    }
}

impl AsFd for Confined {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A path as archives write it, without leading slashes and dots; `None` for the directory itself.
///
/// # Errors
/// A path with `..` in it or with a zero byte: nobody who means well writes such a one.
pub fn relative(bytes: &[u8]) -> Result<Option<PathBuf>, String> {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    if bytes.contains(&0) {
        return Err(format!("the path {:?} has a zero byte", text()));
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(bytes)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(format!("the path {:?} leads out of its directory", text()));
            }
        }
    }
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    #[test]
    fn links_and_dots_stay_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("real")).expect("mkdir");
        fs::create_dir_all(&outside).expect("mkdir");
        symlink(&outside, inside.join("absolute")).expect("symlink");
        symlink("../out", inside.join("relative")).expect("symlink");
        symlink("/real", inside.join("rooted")).expect("symlink");
        let confined = Confined::open(&inside).expect("open");
        for path in ["absolute", "relative", "../out"] {
            let error = confined.lookup(Path::new(path), OFlag::O_PATH).expect_err(path);
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
        let place = confined.place(Path::new("rooted/new/file")).expect("place");
        fs::write(place.path(), "x").expect("write");
        assert!(inside.join("real/new/file").exists());
        assert!(confined.place(Path::new("absolute/file")).is_err(), "a dangling link is no directory");
        assert_eq!(fs::read_dir(&outside).expect("list").count(), 0);
        confined.place(Path::new("absolute")).expect("place").clear().expect("the link goes, not its target");
        assert!(outside.exists() && !inside.join("absolute").exists());
    }

    /// Who may write to a volume swaps a directory in it for a link that leads out, again and again.
    #[test]
    fn nothing_is_reached_through_a_directory_that_turns_into_a_link() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("door")).expect("mkdir");
        fs::create_dir_all(&outside).expect("mkdir");
        fs::write(inside.join("door/kept"), "mine").expect("write");
        fs::write(outside.join("kept"), "precious").expect("write");
        symlink(&outside, inside.join("link")).expect("symlink");
        let confined = Confined::open(&inside).expect("open");
        let (swaps, done) = (AtomicU32::new(0), AtomicBool::new(false));
        let swap = || {
            while !done.load(Ordering::Relaxed) {
                let (door, link) = (inside.join("door"), inside.join("link"));
                renameat2(AT_FDCWD, &door, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).expect("swapped");
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        };
        // Made in the directory, and refused at the link.
        let (mut made, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(swap);
            while made < 1000 || refused < 1000 || swaps.load(Ordering::Relaxed) < 1000 {
                match confined.place(Path::new("door/new")) {
                    Ok(place) => made += u32::from(fs::write(place.path(), "x").is_ok()),
                    Err(_) => refused += 1,
                }
                let cleared = confined.place(Path::new("door/new")).and_then(|place| place.clear());
                let read = confined.read(Path::new("door/kept"), 100);
                assert!(read.as_ref().map_or(true, |bytes| bytes == b"mine"), "{read:?}, {cleared:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
        let found: Vec<_> =
            fs::read_dir(&outside).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(found, ["kept"]);
        assert_eq!(fs::read(outside.join("kept")).expect("read"), b"precious");
    }

    #[test]
    fn paths_of_archives_are_cleaned_or_refused() {
        for (text, want) in [("./a/b", Some("a/b")), ("/a//b/", Some("a/b")), ("./", None), ("", None)] {
            assert_eq!(relative(text.as_bytes()), Ok(want.map(PathBuf::from)), "{text}");
        }
        for text in ["..", "a/../b", "/../x", "a\0b"] {
            assert!(relative(text.as_bytes()).is_err(), "{text}");
        }
    }
}
