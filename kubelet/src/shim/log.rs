//! A container's log: `TIME STREAM TAG LINE`, as the Container Runtime Interface has it, in a row of
//! files of limited size.
//!
//! `N.log` is the newest; `N.log.1` is older, `N.log.2` older still. A tag `P` says that the line goes
//! on in the next entry of the same stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::LogLimits;

/// A line longer than this is cut into parts (the buffer size of CRI runtimes).
pub const MAX_LINE: usize = 16 << 10;

/// Which pipe a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The files of a log, oldest first, the current one last. Those that don't exist are left out.
pub fn files(path: &Path, limits: LogLimits) -> Vec<PathBuf> {
    let older = (1..limits.max_files.max(1)).rev().map(|n| rotated(path, n));
    older.chain([path.to_owned()]).filter(|file| file.exists()).collect()
}

/// The n-th older file; the one with 0 is the current one.
fn rotated(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// The writer of one log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    limits: LogLimits,
    file: File,
    size: u64,
    buffer: Vec<u8>,
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    /// Opens the log, appending to what is there.
    pub fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            limits,
            file,
            size,
            buffer: Vec::new(),
            partial: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what was read from a pipe; whole lines are written at once.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.partial[stream as usize]);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        while let Some((line, tag, after)) = next_entry(rest) {
            self.entry(stream, tag, line, now)?;
            rest = after;
        }
        self.partial[stream as usize] = rest.to_vec();
        self.flush()
    }

    /// The pipe is closed: an unfinished line is written as it is.
    pub fn finish(&mut self, stream: Stream, now: Timestamp) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() {
            self.entry(stream, "P", &rest, now)?;
        }
        self.flush()
    }

    fn entry(&mut self, stream: Stream, tag: &str, line: &[u8], now: Timestamp) -> io::Result<()> {
        write!(self.buffer, "{now:.9} {} {tag} ", stream.as_str())?;
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        let full = self.size + self.buffer.len() as u64 >= self.limits.max_size;
        if full { self.rotate() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        rotate(&self.path, self.limits)?;
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

/// Each file moves one place up; the oldest falls off.
pub fn rotate(path: &Path, limits: LogLimits) -> io::Result<()> {
    let oldest = limits.max_files.max(1) - 1;
    for n in (0..oldest).rev() {
        let from = rotated(path, n);
        if from.exists() {
            fs::rename(&from, rotated(path, n + 1))?;
        }
    }
    if oldest == 0 { fs::remove_file(path) } else { Ok(()) }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The first entry that can be written: a whole line, or a full part of a long one.
fn next_entry(bytes: &[u8]) -> Option<(&[u8], &'static str, &[u8])> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((&bytes[..end], "F", &bytes[end + 1..])),
        None if bytes.len() > MAX_LINE => Some((&bytes[..MAX_LINE], "P", &bytes[MAX_LINE..])),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small")
    }

    #[test]
    fn lines_parts_and_streams() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path, LogLimits::default()).expect("open");
        log.write(Stream::Stdout, b"one\ntw", at(1)).expect("write");
        log.write(Stream::Stderr, b"oops\n", at(2)).expect("write");
        log.write(Stream::Stdout, b"o\nthree", at(3)).expect("write");
        log.finish(Stream::Stdout, at(4)).expect("finish");
        let text = fs::read_to_string(&path).expect("read");
        let want = "1970-01-01T00:00:01.000000000Z stdout F one\n\
                    1970-01-01T00:00:02.000000000Z stderr F oops\n\
                    1970-01-01T00:00:03.000000000Z stdout F two\n\
                    1970-01-01T00:00:04.000000000Z stdout P three\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path, LogLimits::default()).expect("open");
        let mut line = vec![b'x'; MAX_LINE + 10];
        line.push(b'\n');
        log.write(Stream::Stdout, &line, at(1)).expect("write");
        let text = fs::read_to_string(&path).expect("read");
        let parts: Vec<(usize, bool)> =
            text.lines().map(|l| (l.len() - l.rfind(' ').unwrap_or(0) - 1, l.contains(" P "))).collect();
        assert_eq!(parts, [(MAX_LINE, true), (10, false)]);
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_loses_no_line_between_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        let limits = LogLimits { max_size: 400, max_files: 3 };
        let mut log = LogWriter::open(&path, limits).expect("open");
        for n in 0..100 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes(), at(n)).expect("write");
        }
        let files = files(&path, limits);
        assert_eq!(files.len(), 3);
        let all: String = files.iter().map(|f| fs::read_to_string(f).expect("read")).collect();
        let numbers: Vec<u32> = all.lines().filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
        assert_eq!(numbers.last(), Some(&99));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        assert!(files.iter().all(|f| fs::metadata(f).expect("stat").len() <= 450));
    }
}
