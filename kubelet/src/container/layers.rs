//! An image seen as a directory: its layers merged, for reading only.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::chdir;

use crate::confined::{Confined, by_descriptor};
use crate::container::Mount;
use crate::container::mount::open_host;
use crate::container::root::bind;

/// Shows an image, or a part of it, at the mount's target. In `place`, an empty directory, it is mounted meanwhile,
/// so that a part is looked up in the merged whole.
pub fn show(root: &Confined, wanted: &Mount, layers: &[String], place: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    if !layers.is_empty() {
        merge(&wanted.source, layers, place)?;
    }
    let shown = bind(root, &Mount { source: place.to_owned(), ..wanted.clone() });
    if !layers.is_empty() {
        umount2(place, MntFlags::MNT_DETACH)?;
    }
    shown
}

/// Without an upper layer nobody can write, whatever rights he has. Overlayfs wants two lower ones then: the place
/// itself, which is empty, is the second.
fn merge(layers_dir: &Path, layers: &[String], place: &Path) -> io::Result<()> {
    let bottom = open_host(place)?;
    chdir(layers_dir)?;
    let lower: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
    let options = format!("lowerdir={}:{}", lower.join(":"), by_descriptor(bottom.as_fd()).display());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    Ok(mount(Some("overlay"), place, Some("overlay"), flags, Some(options.as_str()))?)
}
