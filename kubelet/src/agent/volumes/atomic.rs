//! Writes the files of a volume so that a container sees all old ones or all new ones, as upstream lays them
//! out: each file is a link into `..data`, which is a link to the directory of one version and is replaced by
//! a rename.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::pod::volumes::payload::Payload;

const CURRENT: &str = "..data";

/// Whose group the files are; `None`: root's.
pub type Group = Option<u32>;

/// Makes `dir` show these files. Returns whether anything had to be changed.
pub fn write(dir: &Path, payload: &Payload, group: Group, now: Timestamp) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    own(dir, 0o755, group)?;
    let old = fs::read_link(dir.join(CURRENT)).ok();
    if old.as_ref().is_some_and(|old| shows(&dir.join(old), payload)) {
        return Ok(false);
    }
    let version = version(dir, now)?;
    for (path, file) in payload {
        let path = dir.join(&version).join(path);
        make_parents(&dir.join(&version), &path, group)?;
        let mut made = File::create_new(&path)?;
        made.write_all(&file.bytes)?;
        // The group may read what it is given.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        chown(&path, file.owner, group)?;
        made.set_permissions(Permissions::from_mode(mode))?;
    }
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&version, &next)?;
    fs::rename(&next, dir.join(CURRENT))?;
    show_names(dir, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// A directory of this version's own, named by the time.
fn version(dir: &Path, now: Timestamp) -> io::Result<OsString> {
    let name = format!("{}.{:09}", now.strftime("..%Y_%m_%d_%H_%M_%S"), rand::random_range(0..1_000_000_000));
    DirBuilder::new().mode(0o755).create(dir.join(&name))?;
    Ok(name.into())
}

fn make_parents(version: &Path, file: &Path, group: Group) -> io::Result<()> {
    own(version, 0o755, group)?;
    let Some(parent) = file.parent().filter(|parent| *parent != version) else { return Ok(()) };
    fs::create_dir_all(parent)?;
    let inside = parent.ancestors().take_while(|dir| *dir != version);
    inside.into_iter().try_for_each(|dir| own(dir, 0o755, group))
}

/// Directories of a group hand their group on.
fn own(dir: &Path, mode: u32, group: Group) -> io::Result<()> {
    chown(dir, None, group)?;
    let mode = if group.is_some() { mode | 0o2050 } else { mode };
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

/// One link for each first part of a path; links of files that are no more go.
fn show_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let firsts: BTreeSet<OsString> =
        payload.keys().filter_map(|path| path.iter().next()).map(|part| part.to_owned()).collect();
    for name in &firsts {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(CURRENT).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("..");
        if !ours && !firsts.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a version has exactly these files.
fn shows(version: &Path, payload: &Payload) -> bool {
    let mut found = Vec::new();
    if list(version, version, &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    found.iter().all(|path| {
        let bytes = fs::read(version.join(path)).ok();
        payload.get(path).is_some_and(|file| bytes.as_deref() == Some(&file.bytes))
    })
}

fn list(base: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(base, &entry.path(), found)?;
        } else {
            found.extend(entry.path().strip_prefix(base).map(Path::to_owned));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::volumes::payload::File as Entry;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let entry = |text: &str| Entry { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| (PathBuf::from(path), entry(text))).collect()
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        fs::read_to_string(dir.join(name)).ok()
    }

    #[test]
    fn an_update_is_one_rename_and_leaves_nothing_of_the_old() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (dir, now) = (dir.path(), Timestamp::UNIX_EPOCH);
        assert!(write(dir, &payload(&[("a", "1"), ("d/b", "2"), ("d/c", "3")]), None, now).expect("write"));
        assert_eq!((read(dir, "a"), read(dir, "d/b")), (Some("1".to_owned()), Some("2".to_owned())));
        let mode = fs::metadata(dir.join("a")).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // Whoever opened the directory of the old version goes on reading it.
        let held = fs::read_link(dir.join(CURRENT)).expect("a link");
        assert!(!write(dir, &payload(&[("a", "1"), ("d/b", "2"), ("d/c", "3")]), None, now).expect("same"));
        assert_eq!(fs::read_link(dir.join(CURRENT)).expect("a link"), held, "nothing changed, nothing moved");
        assert!(write(dir, &payload(&[("a", "9"), ("e", "5")]), None, now).expect("update"));
        assert_eq!((read(dir, "a"), read(dir, "e")), (Some("9".to_owned()), Some("5".to_owned())));
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("list")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        let version = fs::read_link(dir.join(CURRENT)).expect("a link").to_string_lossy().into_owned();
        assert_eq!(names, [version, "..data".to_owned(), "a".to_owned(), "e".to_owned()]);
    }

    #[test]
    fn an_empty_volume_is_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(write(dir.path(), &Payload::new(), None, Timestamp::UNIX_EPOCH).expect("write"));
        assert!(dir.path().join(CURRENT).exists());
    }
}
