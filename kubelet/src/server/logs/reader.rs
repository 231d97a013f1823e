//! Reads a log over its files, and follows it over rotations until its container ends.
//!
//! Always holds: the watch begins before the end of the file is looked for, so no write between the two is
//! missed; a rotated file is read to its end before the next one is begun.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;

use crate::config::LogLimits;
use crate::pod::{ContainerName, PodRef};
use crate::server::Asker;
use crate::server::inotify::DirectoryWatch;
use crate::server::logs::LogOptions;
use crate::server::logs::filter::{LogFilter, Tail, tail_offset};
use crate::shim::log;

/// One read from a file.
const READ_SIZE: usize = 64 << 10;

/// A log being read.
pub struct LogReader {
    path: PathBuf,
    limits: LogLimits,
    filter: LogFilter,
    /// The file being read; `None` before the first.
    file: Option<File>,
    follow: Option<Follow>,
    /// The current file was found rotated and has been read once more since.
    drained: bool,
    done: bool,
}

/// What following needs.
struct Follow {
    watch: DirectoryWatch,
    ended: watch::Receiver<u64>,
    asker: Asker,
    pod: PodRef,
    container: ContainerName,
    attempt: u32,
    /// The container has ended: what is there now is all.
    last_round: bool,
}

impl LogReader {
    /// Opens the log of one run.
    pub fn open(
        path: PathBuf,
        limits: LogLimits,
        options: LogOptions,
        asker: Asker,
        pod: PodRef,
        attempt: u32,
    ) -> io::Result<Self> {
        let follow = match options.follow {
            true => Some(Follow::new(&path, asker, pod, attempt)?),
            false => None,
        };
        let file = match options.tail_lines {
            Some(lines) => tail(&log::files(&path, limits), lines)?,
            None => open_first(&log::files(&path, limits))?,
        };
        Ok(Self { path, limits, filter: LogFilter::new(&options), file, follow, drained: false, done: false })
    }

    /// The text, piece by piece.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures::stream::try_unfold(self, |mut reader| async move {
            Ok(reader.next().await?.map(|chunk| (chunk, reader)))
        })
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.done {
            let bytes = self.read_on().await?;
            let at_end = bytes.is_empty();
            let text = self.filter.feed(&bytes);
            self.done = self.filter.is_full();
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
            if at_end && !self.done && !self.next_file()? {
                self.done = !self.wait().await?;
            }
        }
        Ok(None)
    }

    /// The next bytes of the current file; nothing at its end.
    async fn read_on(&mut self) -> io::Result<Vec<u8>> {
        let Some(mut file) = self.file.take() else { return Ok(Vec::new()) };
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; READ_SIZE];
            let length = file.read(&mut buffer)?;
            buffer.truncate(length);
            Ok::<_, io::Error>((file, buffer))
        });
        let (file, buffer) = read.await.map_err(io::Error::other)??;
        self.file = Some(file);
        Ok(buffer)
    }

    /// Goes to the next newer file, if this one has been rotated away; it has been read to its end, and
    /// no one writes to a rotated file.
    fn next_file(&mut self) -> io::Result<bool> {
        let files = log::files(&self.path, self.limits);
        let Some(current) = &self.file else {
            self.file = open_first(&files)?;
            return Ok(self.file.is_some());
        };
        let inode = current.metadata()?.ino();
        let position = files.iter().position(|file| fs::metadata(file).is_ok_and(|meta| meta.ino() == inode));
        let next = match position {
            Some(position) => files.get(position + 1),
            // It has fallen off: the oldest that is left comes next.
            None => files.first(),
        };
        let Some(next) = next else { return Ok(false) };
        // It may have been written to between the read that found its end and its rotation.
        if !std::mem::replace(&mut self.drained, true) {
            return Ok(true);
        }
        self.file = Some(File::open(next)?);
        self.drained = false;
        Ok(true)
    }

    /// Waits for more; `false` if none will come.
    async fn wait(&mut self) -> io::Result<bool> {
        match &mut self.follow {
            Some(follow) => follow.wait().await,
            None => Ok(false),
        }
    }
}

impl Follow {
    fn new(path: &Path, asker: Asker, pod: PodRef, attempt: u32) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(path);
        let container = directory.file_name().map(|name| name.to_string_lossy().into_owned());
        fs::create_dir_all(directory)?;
        Ok(Self {
            watch: DirectoryWatch::new(directory)?,
            ended: asker.ended(),
            asker,
            pod,
            container: ContainerName(container.unwrap_or_default()),
            attempt,
            last_round: false,
        })
    }

    /// Waits for a write or for the end of a container. After the end of this one there is one more
    /// round, for what was written before it was told.
    async fn wait(&mut self) -> io::Result<bool> {
        if self.last_round {
            return Ok(false);
        }
        self.ended.borrow_and_update();
        if !self.is_running().await {
            self.last_round = true;
            return Ok(true);
        }
        tokio::select! {
            changed = self.watch.changed() => changed.map(|()| true),
            ended = self.ended.changed() => Ok(ended.is_ok()),
        }
    }

    async fn is_running(&self) -> bool {
        let target = self.asker.log(&self.pod.namespace, &self.pod.name, &self.container.0).await;
        target.is_ok_and(|target| {
            target.is_ok_and(|t| t.running && t.current == self.attempt && t.pod == self.pod)
        })
    }
}

fn open_first(files: &[PathBuf]) -> io::Result<Option<File>> {
    files.first().map(File::open).transpose()
}

/// The file in which the last entries begin, at their beginning.
fn tail(files: &[PathBuf], lines: u64) -> io::Result<Option<File>> {
    let mut left = lines;
    let mut found = None;
    for path in files.iter().rev() {
        let mut file = File::open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (offset, more) = match tail_offset(&bytes, left) {
            Tail::From(offset) => (offset, 0),
            Tail::More(more) => (0, more),
        };
        file.seek(SeekFrom::Start(offset))?;
        found = Some(file);
        left = more;
        if left == 0 {
            break;
        }
    }
    Ok(found)
}
