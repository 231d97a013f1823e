//! The default profile (`seccompProfile.type: RuntimeDefault`): system calls that containers have no business
//! with fail with "operation not permitted", and those younger than this profile as if the kernel had none.
//!
//! The calls and the capabilities that allow them are those of the profile that Docker and containerd share,
//! told the other way round: what is refused instead of what is allowed.

use std::io;

use nix::errno::Errno;

use crate::container::capabilities::Capabilities;

/// Refused unless the container has this capability; none allows the first ones.
const REFUSED: &[(Option<&str>, &[libc::c_long])] = &[
    (
        None,
        &[
            libc::SYS_add_key,
            libc::SYS_keyctl,
            libc::SYS_request_key,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_nfsservctl,
            libc::SYS_pivot_root,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
        ],
    ),
    (
        Some("SYS_ADMIN"),
        &[
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    (Some("BPF"), &[libc::SYS_bpf]),
    (Some("PERFMON"), &[libc::SYS_perf_event_open]),
    (Some("SYSLOG"), &[libc::SYS_syslog]),
    (Some("DAC_READ_SEARCH"), &[libc::SYS_open_by_handle_at]),
    (Some("SYS_BOOT"), &[libc::SYS_reboot]),
    (Some("SYS_CHROOT"), &[libc::SYS_chroot]),
    (Some("SYS_MODULE"), &[libc::SYS_delete_module, libc::SYS_init_module, libc::SYS_finit_module]),
    (Some("SYS_PACCT"), &[libc::SYS_acct]),
    (
        Some("SYS_PTRACE"),
        &[
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
            libc::SYS_process_madvise,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
        ],
    ),
    (Some("SYS_TIME"), &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    (Some("SYS_TTY_CONFIG"), &[libc::SYS_vhangup]),
    (Some("SYS_NICE"), &[libc::SYS_get_mempolicy, libc::SYS_mbind, libc::SYS_set_mempolicy]),
    #[cfg(target_arch = "x86_64")]
    (None, &[libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs, libc::SYS__sysctl]),
    #[cfg(target_arch = "x86_64")]
    (Some("SYS_RAWIO"), &[libc::SYS_iopl, libc::SYS_ioperm]),
];

/// What who only waits needs.
const WAITING: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pause,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The youngest call that this profile knows. One after it fails as in an older kernel, and programs take
/// another way.
const YOUNGEST: libc::c_long = libc::SYS_mseal;
/// What `clone` may not make without `SYS_ADMIN`.
const NAMESPACES: u32 = 0x7e02_0080;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in the kernel's `struct seccomp_data`; an argument's lower half comes first on these machines.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// A filter, as the kernel takes it.
pub struct Filter(Vec<libc::sock_filter>);

/// One step; jumps count steps from the next one.
fn step(code: u16, k: u32, jump_if: u8, jump_else: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: jump_if, jf: jump_else, k }
}

fn fail(errno: i32) -> libc::sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0, 0)
}

impl Filter {
    /// The default profile for a container with these capabilities.
    pub fn default_for(capabilities: Capabilities) -> Self {
        let mut steps = vec![
            step(LOAD, MACHINE, 0, 0),
            step(EQUAL, ARCHITECTURE, 1, 0),
            step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            step(LOAD, NUMBER, 0, 0),
            // Calls of the x32 interface have large numbers, too.
            step(ABOVE, u32::try_from(YOUNGEST).unwrap_or(u32::MAX), 0, 1),
            fail(libc::ENOSYS),
        ];
        let refused = REFUSED.iter().filter(|(allows, _)| !allows.is_some_and(|name| capabilities.has(name)));
        for number in refused.flat_map(|(_, numbers)| *numbers) {
            steps.push(step(EQUAL, u32::try_from(*number).unwrap_or(u32::MAX), 0, 1));
            steps.push(fail(libc::EPERM));
        }
        if !capabilities.has("SYS_ADMIN") {
            steps.extend(without_namespaces());
        }
        steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
        Self(steps)
    }

    /// Lets a process wait and end, and say one last word by the descriptor `report`.
    pub fn for_waiting(report: u32) -> Self {
        let mut steps = vec![
            step(LOAD, MACHINE, 0, 0),
            step(EQUAL, ARCHITECTURE, 1, 0),
            step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            step(LOAD, NUMBER, 0, 0),
        ];
        for number in WAITING {
            steps.push(step(EQUAL, u32::try_from(*number).unwrap_or(u32::MAX), 0, 1));
            steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
        }
        for number in [libc::SYS_write, libc::SYS_close] {
            steps.push(step(EQUAL, u32::try_from(number).unwrap_or(u32::MAX), 0, 4));
            steps.push(step(LOAD, FIRST_ARGUMENT, 0, 0));
            steps.push(step(EQUAL, report, 0, 1));
            steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
            steps.push(step(LOAD, NUMBER, 0, 0));
        }
        steps.push(fail(libc::EPERM));
        Self(steps)
    }

    /// Puts it in force for this process and all it will start. Without `no_new_privs` this needs
    /// `SYS_ADMIN`.
    pub fn install(&self) -> io::Result<()> {
        let length = u16::try_from(self.0.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr().cast_mut() };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the program points to as many steps as it says, and the kernel only reads them.
        Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, std::ptr::from_ref(&program)) })?;
        Ok(())
    }
}

/// The flags of `clone3` are in memory, where a filter can't look: programs fall back to `clone`.
fn without_namespaces() -> [libc::sock_filter; 7] {
    let number = |number: libc::c_long| u32::try_from(number).unwrap_or(u32::MAX);
    [
        step(EQUAL, number(libc::SYS_clone3), 0, 1),
        fail(libc::ENOSYS),
        step(EQUAL, number(libc::SYS_clone), 0, 3),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(BITS, NAMESPACES, 0, 1),
        fail(libc::EPERM),
        step(LOAD, NUMBER, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by running it as the kernel would.
    fn answer(filter: &Filter, number: libc::c_long, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = filter.0[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    value = match step.k {
                        NUMBER => u32::try_from(number).expect("small"),
                        MACHINE => ARCHITECTURE,
                        _ => argument,
                    }
                }
                EQUAL => at += jump(value == step.k),
                ABOVE => at += jump(value > step.k),
                BITS => at += jump(value & step.k != 0),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn who_waits_can_do_nothing_else() {
        let filter = Filter::for_waiting(1);
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        for number in [libc::SYS_ppoll, libc::SYS_exit_group] {
            assert_eq!(answer(&filter, number, 7), libc::SECCOMP_RET_ALLOW, "{number}");
        }
        for number in [libc::SYS_write, libc::SYS_close] {
            assert_eq!(answer(&filter, number, 1), libc::SECCOMP_RET_ALLOW, "{number}");
            assert_eq!(answer(&filter, number, 0), refused, "{number}");
        }
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_clone, libc::SYS_mmap, libc::SYS_setns] {
            assert_eq!(answer(&filter, number, 1), refused, "{number}");
        }
    }

    #[test]
    fn what_is_refused_depends_on_capabilities_and_arguments() {
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
        let allowed = libc::SECCOMP_RET_ALLOW;
        let plain = Filter::default_for(Capabilities::wished(&[], &[]).expect("known"));
        let admin = Filter::default_for(Capabilities::ALL);
        for (number, argument, of_plain, of_admin) in [
            (libc::SYS_read, 0, allowed, allowed),
            (libc::SYS_chroot, 0, allowed, allowed),
            (libc::SYS_mount, 0, refused(libc::EPERM), allowed),
            (libc::SYS_keyctl, 0, refused(libc::EPERM), refused(libc::EPERM)),
            (libc::SYS_clone, 17, allowed, allowed),
            (libc::SYS_clone, 0x1000_0000, refused(libc::EPERM), allowed),
            (libc::SYS_clone3, 0, refused(libc::ENOSYS), allowed),
            (YOUNGEST + 1, 0, refused(libc::ENOSYS), refused(libc::ENOSYS)),
            (0x4000_0000, 0, refused(libc::ENOSYS), refused(libc::ENOSYS)),
        ] {
            assert_eq!(answer(&plain, number, argument), of_plain, "{number}");
            assert_eq!(answer(&admin, number, argument), of_admin, "{number}");
        }
    }
}
