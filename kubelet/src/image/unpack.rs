//! Unpacks one layer into a directory, in the form that overlayfs wants of a lower directory.
//!
//! A layer says by files named `.wh.NAME` what it removes from those below; overlayfs says the same by a
//! character device 0:0, and by an attribute on a directory of which nothing below shall be seen.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};
use tar::{Archive, Entry, EntryType};

use crate::confined::{Confined, Place, relative};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What stands before an extended attribute's name in the archive.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// Unpacks the archive into `dir`, which exists and is empty. The error names the entry.
pub fn unpack(archive: impl Read, dir: &Path) -> io::Result<()> {
    let mut archive = Archive::new(archive);
    let mut unpacker = Unpacker { root: Confined::open(dir)?, directories: Vec::new() };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        unpacker.entry(&mut entry, &name).map_err(|error| {
            io::Error::new(error.kind(), format!("entry {:?}: {error}", String::from_utf8_lossy(&name)))
        })?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: Confined,
    /// Times of directories, set when nothing is put into them any more.
    directories: Vec<(PathBuf, TimeSpec)>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, name: &[u8]) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let Some(path) = relative(name).map_err(invalid)? else { return self.root_itself(entry) };
        let last = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if last == OPAQUE {
            return self.hide_all_below(&path);
        }
        if last.starts_with(b".wh..wh.") {
            // Marks of another union file system; they mean nothing to a container.
            return Ok(());
        }
        if let Some(removed) = last.strip_prefix(WHITEOUT) {
            return self.hide(&path.with_file_name(OsStr::from_bytes(removed)));
        }
        self.make(entry, kind, &path)
    }

    fn root_itself<R: Read>(&mut self, entry: &Entry<'_, R>) -> io::Result<()> {
        let root = self.root.lookup(Path::new("."), OFlag::O_PATH)?;
        let place = Place { parent: root, name: ".".into() };
        dress(&place, entry, false)?;
        self.directories.push((PathBuf::from("."), modified(entry)?));
        Ok(())
    }

    fn make<R: Read>(&mut self, entry: &mut Entry<'_, R>, kind: EntryType, path: &Path) -> io::Result<()> {
        let place = self.root.place(path)?;
        if kind.is_dir() {
            make_directory(&place)?;
            self.directories.push((path.to_owned(), modified(entry)?));
        } else {
            place.clear()?;
        }
        match kind {
            EntryType::Directory => {}
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => write_file(&place, entry)?,
            EntryType::Symlink => symlinkat(&*link_target(entry)?, &place.parent, &*place.name)?,
            // The other name has owner, mode and times already.
            EntryType::Link => return self.link(entry, &place),
            EntryType::Char | EntryType::Block | EntryType::Fifo => make_node(&place, entry, kind)?,
            other => return Err(invalid(format!("entries of type {other:?} are not supported"))),
        }
        dress(&place, entry, kind.is_symlink())?;
        add_attributes(&place, entry)?;
        if kind.is_dir() { Ok(()) } else { set_time(&place, modified(entry)?) }
    }

    fn link<R: Read>(&self, entry: &Entry<'_, R>, place: &Place) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| invalid("a hard link without a target"))?;
        let target = relative(&target).map_err(invalid)?.ok_or_else(|| invalid("a hard link to the root"))?;
        let other = self.root.place(&target)?;
        linkat(&other.parent, &*other.name, &place.parent, &*place.name, AtFlags::empty()).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("link to {target:?}: {error}"))
        })
    }

    fn hide(&self, path: &Path) -> io::Result<()> {
        let place = self.root.place(path)?;
        place.clear()?;
        Ok(mknodat(&place.parent, &*place.name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
    }

    fn hide_all_below(&self, mark: &Path) -> io::Result<()> {
        let directory = mark.parent().unwrap_or(Path::new(""));
        let fd = self.root.make_dir(directory, Mode::from_bits_truncate(0o755))?;
        set_attribute(&crate::confined::by_descriptor(fd.as_fd()), c"trusted.overlay.opaque", b"y", true)
    }

    /// Deepest first: setting a directory's time changes nothing above it.
    fn finish(self) -> io::Result<()> {
        for (path, time) in self.directories.into_iter().rev() {
            let Ok(fd) = self.root.lookup(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
            else {
                // Removed or replaced by a later entry.
                continue;
            };
            let path = crate::confined::by_descriptor(fd.as_fd());
            utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::FollowSymlink)?;
        }
        Ok(())
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name_bytes().ok_or_else(|| invalid("a symbolic link without a target"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&target)))
}

/// A directory that is there stays; anything else makes way.
fn make_directory(place: &Place) -> io::Result<()> {
    if std::fs::symlink_metadata(place.path()).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    place.clear()?;
    Ok(mkdirat(&place.parent, &*place.name, Mode::from_bits_truncate(0o755))?)
}

fn write_file<R: Read>(place: &Place, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(&place.parent, &*place.name, flags, Mode::from_bits_truncate(0o600))?;
    io::copy(entry, &mut File::from(fd)).map(drop)
}

fn make_node<R: Read>(place: &Place, entry: &Entry<'_, R>, kind: EntryType) -> io::Result<()> {
    let flag = match kind {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let number = |number: io::Result<Option<u32>>| number.map(|n| u64::from(n.unwrap_or_default()));
    let (major, minor) = (number(entry.header().device_major())?, number(entry.header().device_minor())?);
    if flag == SFlag::S_IFCHR && (major, minor) == (0, 0) {
        return Err(invalid("a device 0:0 would hide what is below it"));
    }
    Ok(mknodat(&place.parent, &*place.name, flag, Mode::from_bits_truncate(0o600), makedev(major, minor))?)
}

/// Owner first: changing it clears the set-user-ID bit.
fn dress<R: Read>(place: &Place, entry: &Entry<'_, R>, is_link: bool) -> io::Result<()> {
    let id = |id: io::Result<u64>| id.and_then(|id| u32::try_from(id).map_err(io::Error::other));
    let owner = Uid::from_raw(id(entry.header().uid())?);
    let group = Gid::from_raw(id(entry.header().gid())?);
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(&place.parent, &*place.name, Some(owner), Some(group), flags)?;
    if is_link {
        return Ok(());
    }
    let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
    // What was just made is no link, and nobody else writes here.
    Ok(nix::sys::stat::fchmodat(
        &place.parent,
        &*place.name,
        mode,
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?)
}

fn modified<R: Read>(entry: &Entry<'_, R>) -> io::Result<TimeSpec> {
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(0);
    Ok(TimeSpec::new(seconds, 0))
}

fn set_time(place: &Place, time: TimeSpec) -> io::Result<()> {
    Ok(utimensat(&place.parent, &*place.name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Overlayfs' own attributes are never taken from an archive: they would hide what is below.
fn add_attributes<R: Read>(place: &Place, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let mut found: Vec<(CString, Vec<u8>)> = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Some(name) = extension.key_bytes().strip_prefix(ATTRIBUTE) else { continue };
        if !name.starts_with(b"trusted.") {
            found.push((CString::new(name)?, extension.value_bytes().to_vec()));
        }
    }
    found.iter().try_for_each(|(name, value)| set_attribute(&place.path(), name, value, false))
}

fn set_attribute(path: &Path, name: &std::ffi::CStr, value: &[u8], follow: bool) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let set = if follow { libc::setxattr } else { libc::lsetxattr };
    // SAFETY: path, name and value live during the call, and the length is the value's.
    let done = unsafe { set(text.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(io::Error::new(error.kind(), format!("set the attribute {name:?}: {error}")))
}

/// Everything below this directory is on disk when it returns, so that it can be named as whole.
pub fn sync(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
