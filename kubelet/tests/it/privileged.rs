//! Tests that need root say so where they can't have it.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether this test may go on; says so if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: overlayfs, devices and namespaces need root");
    }
    root
}

/// An extended attribute; empty if there is none.
pub fn attribute(path: &Path, name: &CStr) -> Vec<u8> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    let mut value = vec![0; 256];
    // SAFETY: both texts end in a zero and the buffer has the length that is given.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(length).unwrap_or(0));
    value
}
