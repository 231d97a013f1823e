//! What `ps` shows of a supervisor: its container's directory, though the process began with the arguments
//! of the fork server. Whoever ends a node's processes finds them by it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The last arguments of the fork server, which [`Title::show`] replaces: the node's directory, and padding.
pub const ARGUMENTS: usize = 2;

/// What a container's path has on top of its node's at most: `/containers/UID/NAME/ATTEMPT`.
const LONGEST_SUFFIX: usize = "/containers".len() + 1 + 36 + 1 + 63 + 1 + 10;

/// The padding a fork server needs.
pub fn padding() -> OsString {
    " ".repeat(LONGEST_SUFFIX).into()
}

/// Where a process of the fork server has the arguments that a supervisor replaces.
#[derive(Clone, Copy, Debug)]
pub struct Title {
    end: usize,
    room: usize,
}

impl Title {
    /// Finds the fork server's own, which stands at the same place in every process forked from it.
    pub fn of_process() -> io::Result<Self> {
        let arguments = std::env::args_os().rev().take(ARGUMENTS);
        Ok(Self { end: place(END_OF_ARGUMENTS)?, room: arguments.map(|argument| argument.len() + 1).sum() })
    }

    /// Replaces the fork server's last arguments by this directory. A path that doesn't fit is not shown:
    /// the node's directory stays, which is enough to be found by.
    pub fn show(self, directory: &Path) {
        let text = directory.as_os_str().as_bytes();
        if text.len() >= self.room {
            return;
        }
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.end - self.room);
        // SAFETY: the kernel put the arguments one behind the other, each with a zero, and said where they
        // end; the last ones take `room` bytes. They are this process's own writable memory, no other
        // thread exists, and nothing keeps a reference to them (`args_os` copies).
        unsafe {
            std::ptr::write_bytes(place, 0, self.room);
            std::ptr::copy_nonoverlapping(text.as_ptr(), place, text.len());
        }
    }
}

/// Overwrites the environment that the process was started with: who may look into it learns nothing of the host.
pub fn forget_environment() -> io::Result<()> {
    let (begin, end) = (place(BEGIN_OF_ENVIRONMENT)?, place(END_OF_ENVIRONMENT)?);
    let block = std::ptr::with_exposed_provenance_mut::<u8>(begin);
    // SAFETY: the kernel put the environment there; it is this process's own writable memory, no other thread exists,
    // and nobody asks for a variable any more (one would be found without a name).
    unsafe { std::ptr::write_bytes(block, 0, end.saturating_sub(begin)) };
    Ok(())
}

/// Fields of `/proc/self/stat`, counted from 1.
const END_OF_ARGUMENTS: usize = 49;
const BEGIN_OF_ENVIRONMENT: usize = 50;
const END_OF_ENVIRONMENT: usize = 51;

/// An address in a field of `/proc/self/stat`; the name in field 2 may hold anything, so counting begins after it.
fn place(field: usize) -> io::Result<usize> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let address = after_name.split_ascii_whitespace().nth(field - 3).and_then(|field| field.parse().ok());
    address.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat doesn't say where arguments are")
    })
}
