//! Linux capabilities: the parts of root's power, by the names that pods use.

use std::io;

use api::pod_security;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// In the order of their numbers (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless their pod says otherwise, the same as with every other runtime: what Pod Security
/// lets everybody ask for, and raw sockets.
fn default() -> Vec<String> {
    pod_security::CAPABILITIES.iter().chain(&["NET_RAW"]).map(|name| (*name).to_owned()).collect()
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Capabilities {
    /// All that this program knows; the kernel may have fewer.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// None of root's rights.
    pub const NONE: Self = Self(0);

    /// A pod's wish: what is dropped goes first, `ALL` on either side means all.
    pub fn wished(add: &[String], drop: &[String]) -> Result<Self, String> {
        let (base, dropped, added) = (set(&default())?, set(drop)?, set(add)?);
        Ok(Self(base & !dropped | added))
    }

    /// Whether the capability with this name is in the set.
    pub fn has(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// Gives up for ever what isn't in the set: no program that is run can get it back.
    pub fn bound(self) -> io::Result<()> {
        for number in (0..64).filter(|number| self.0 & (1_u64 << number) == 0) {
            // SAFETY: prctl with integers only.
            match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }) {
                // The kernel has no capability of this number, nor higher ones.
                Err(Errno::EINVAL) => return Ok(()),
                done => done.map(drop)?,
            }
        }
        Ok(())
    }

    /// Makes the set this process's own, as far as it has it. For root: another user has none anyway.
    pub fn keep(self) -> io::Result<()> {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let mut data = [Data::default(); 2];
        call(libc::SYS_capget, &mut header, &mut data)?;
        for (part, data) in data.iter_mut().enumerate() {
            let wanted = u32::try_from(self.0 >> (32 * part) & 0xffff_ffff).unwrap_or_default();
            let kept = data.permitted & wanted;
            *data = Data { effective: kept, permitted: kept, inheritable: 0 };
        }
        call(libc::SYS_capset, &mut header, &mut data)
    }
}

fn number(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare)
}

fn set(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |set, name| match number(name) {
        _ if name.eq_ignore_ascii_case("ALL") => Ok(set | Capabilities::ALL.0),
        Some(number) => Ok(set | 1 << number),
        None => Err(format!("unknown capability {name:?}")),
    })
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn call(number: libc::c_long, header: &mut Header, data: &mut [Data; 2]) -> io::Result<()> {
    // SAFETY: both point to structures as version 3 of the interface has them.
    Errno::result(unsafe { libc::syscall(number, std::ptr::from_mut(header), data.as_mut_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn wishes_add_to_and_drop_from_the_default() {
        let wished =
            |add: &[&str], drop: &[&str]| Capabilities::wished(&names(add), &names(drop)).expect("known");
        let default = wished(&[], &[]);
        assert!(default.has("CHOWN") && default.has("cap_chown") && !default.has("SYS_ADMIN"));
        let some = wished(&["NET_ADMIN"], &["CHOWN"]);
        assert!(some.has("NET_ADMIN") && !some.has("CHOWN") && some.has("KILL"));
        assert_eq!(wished(&["NET_BIND_SERVICE"], &["ALL"]), Capabilities(1 << 10));
        assert_eq!(wished(&["all"], &[]), Capabilities::ALL);
        let error = Capabilities::wished(&names(&["FLY"]), &[]).expect_err("unknown");
        assert_eq!(error, "unknown capability \"FLY\"");
    }
}
