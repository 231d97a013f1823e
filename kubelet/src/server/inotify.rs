//! Waits for a directory to change.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells of writes, and of files that come, go or are renamed in one directory.
pub struct DirectoryWatch(AsyncFd<OwnedFd>);

impl DirectoryWatch {
    /// Begins to watch; whatever happens from now on is told.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: inotify_init1 takes flags and returns a new descriptor or -1.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor to us and to no one else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let gone = libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_DELETE_SELF;
        let events = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_MOVED_TO | gone;
        // SAFETY: the path is a terminated string that outlives the call.
        if unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), events) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: OwnedFd owns its descriptor and never replaces it.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        registered.map(Self).map_err(io::Error::from)
    }

    /// Waits until something has happened since the last call.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: the buffer is writable and of the given length.
            let read =
                unsafe { libc::read(self.0.get_ref().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if read <= 0 {
                break;
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
