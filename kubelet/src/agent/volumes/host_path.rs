//! A file or directory of the host, checked or made as the volume's type says.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks the path, or makes what is missing. The error is what an event says.
pub fn prepare(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
        }
        "FileOrCreate" if !path.exists() => {
            let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(path);
            file.map_err(failed)?;
        }
        _ => {}
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta.file_type(),
        // Without a type nothing is checked; a directory is made, as container runtimes do.
        Err(error) if kind.is_empty() && error.kind() == io::ErrorKind::NotFound => {
            return fs::create_dir_all(path).map_err(failed);
        }
        Err(_) => return Err(wrong(path, what(kind))),
    };
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => meta.is_dir(),
        "File" | "FileOrCreate" => meta.is_file(),
        "Socket" => meta.is_socket(),
        "CharDevice" => meta.is_char_device(),
        "BlockDevice" => meta.is_block_device(),
        "" => true,
        other => return Err(format!("hostPath type {other:?} is not known")),
    };
    if fits { Ok(()) } else { Err(wrong(path, what(kind))) }
}

fn what(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        _ => "file",
    }
}

fn wrong(path: &Path, what: &str) -> String {
    format!("hostPath type check failed: {} is not a {what}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").expect("write");
        for (name, kind) in [
            ("made", ""),
            ("dir", "DirectoryOrCreate"),
            ("dir", "Directory"),
            ("new", "FileOrCreate"),
            ("new", "File"),
        ] {
            assert_eq!(prepare(&at(name), kind), Ok(()), "{name} {kind}");
        }
        assert!(at("dir").is_dir() && at("new").is_file() && at("made").is_dir());
        assert_eq!(prepare(Path::new("/dev/null"), "CharDevice"), Ok(()));
        for (name, kind, what) in [
            ("file", "Directory", "directory"),
            ("file", "DirectoryOrCreate", "directory"),
            ("dir", "File", "file"),
            ("none", "Socket", "socket file"),
            ("file", "BlockDevice", "block device"),
        ] {
            let why = format!("hostPath type check failed: {} is not a {what}", at(name).display());
            assert_eq!(prepare(&at(name), kind), Err(why));
        }
    }
}
