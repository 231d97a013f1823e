//! What the machine is and has, read once at the start.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

/// What the machine is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors this process may use.
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system that holds the data directory.
    pub storage: u64,
    /// The host's name.
    pub hostname: String,
    /// In Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's identity, or the machine id where it can't be read.
    pub system_uuid: String,
    /// Differs after each boot.
    pub boot_id: String,
    /// As `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_image: String,
}

/// Measures this machine.
pub fn measure(data_dir: &Path) -> io::Result<Machine> {
    let kernel = uname()?;
    let space = statvfs(data_dir)?;
    let machine_id = trimmed("/etc/machine-id").unwrap_or_default();
    Ok(Machine {
        cpus: std::thread::available_parallelism()?.get(),
        memory: memory(&fs::read_to_string("/proc/meminfo")?),
        storage: space.blocks() * space.fragment_size(),
        hostname: kernel.nodename().to_string_lossy().into_owned(),
        architecture: go_architecture(std::env::consts::ARCH).to_owned(),
        system_uuid: trimmed("/sys/class/dmi/id/product_uuid").unwrap_or_else(|| machine_id.clone()),
        machine_id,
        boot_id: crate::process::boot_id()?.to_owned(),
        kernel: kernel.release().to_string_lossy().into_owned(),
        os_image: fs::read_to_string("/etc/os-release").ok().and_then(|t| os_image(&t)).unwrap_or_default(),
    })
}

fn trimmed(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn os_image(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn go_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_understood() {
        assert_eq!(memory("MemTotal:        8000 kB\nMemFree: 1 kB\n"), 8_192_000);
        let release = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n";
        assert_eq!(os_image(release).as_deref(), Some("Debian GNU/Linux 13"));
    }

    #[test]
    fn this_machine_can_be_measured() {
        let machine = measure(Path::new("/")).expect("measure");
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.storage > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty(), "{machine:?}");
    }
}
