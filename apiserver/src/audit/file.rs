//! A file of lines that is set aside when it has grown, with the names of upstream's rotation:
//! `audit-2026-01-31T12-00-00.000.log` beside `audit.log`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When a file is set aside, and how long it is kept then.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// A larger file is set aside, in bytes.
    pub max_bytes: u64,
    /// So many are kept; 0 means all.
    pub max_backups: usize,
    /// For so long they are kept; zero means for ever.
    pub max_age: Duration,
}

impl Default for Rotation {
    /// 100 MiB, and ten of them.
    fn default() -> Self {
        Self { max_bytes: 100 << 20, max_backups: 10, max_age: Duration::ZERO }
    }
}

/// The file.
#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Rotation,
}

impl Rotating {
    /// Goes on with the file at `path`, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(path: &Path, rotation: Rotation) -> std::io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, rotation })
    }

    /// Appends a line, in one write.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let size = line.len() as u64;
        if self.bytes > 0 && self.bytes + size > self.rotation.max_bytes {
            self.rotate(Timestamp::now())?;
        }
        self.file.write_all(line)?;
        self.bytes += size;
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> std::io::Result<()> {
        std::fs::rename(&self.path, self.backup_name(now))?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        for old in self.outdated(now)? {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        (text(self.path.file_stem()), text(self.path.extension()))
    }

    fn backup_name(&self, now: Timestamp) -> PathBuf {
        let (stem, extension) = self.parts();
        let name = |now: Timestamp| format!("{stem}-{}.{extension}", now.strftime("%Y-%m-%dT%H-%M-%S.%3f"));
        // Two in one millisecond must not overwrite one another.
        let mut now = now;
        while self.path.with_file_name(name(now)).exists() {
            now += SignedDuration::from_millis(1);
        }
        self.path.with_file_name(name(now))
    }

    /// Files that were set aside and are too many or too old; the names sort by time.
    fn outdated(&self, now: Timestamp) -> std::io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.parts();
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (mut backups, prefix) = (Vec::new(), format!("{stem}-"));
        for entry in std::fs::read_dir(directory.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(&format!(".{extension}")) {
                backups.push((entry.path(), entry.metadata()?.modified()?));
            }
        }
        backups.sort();
        let kept = if self.rotation.max_backups == 0 { usize::MAX } else { self.rotation.max_backups };
        let surplus = backups.len().saturating_sub(kept);
        let limit = self.rotation.max_age;
        let old = |modified: std::time::SystemTime| {
            let age = now.duration_since(Timestamp::try_from(modified).unwrap_or(now));
            !limit.is_zero() && Duration::try_from(age).unwrap_or_default() > limit
        };
        let outdated = backups.into_iter().enumerate();
        Ok(outdated
            .filter(|(at, (_, modified))| *at < surplus || old(*modified))
            .map(|(_, (path, _))| path)
            .collect())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The lines of the file, as soon as there are so many.
    pub(crate) fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            assert!(std::time::Instant::now() < deadline, "only {text:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_has_grown_is_set_aside_and_only_some_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let rotation = Rotation { max_bytes: 20, max_backups: 2, max_age: Duration::ZERO };
        let mut file = Rotating::open(&path, rotation).expect("it opens");
        for number in 0..10 {
            file.append(format!("line {number}..\n").as_bytes()).expect("written");
        }
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(dir.path()).expect("a directory");
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names().len(), 3, "{:?}", names());
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "line 8..\nline 9..\n");
        drop(file);
        let mut file = Rotating::open(&path, rotation).expect("it opens again");
        file.append(b"more\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "more\n", "it knew how full it was");
    }
}
