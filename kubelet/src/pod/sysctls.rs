//! Which kernel settings a pod may have: those that concern nobody else, and those that the node's administrator
//! allows. Upstream's list, rules and texts (`pkg/kubelet/sysctl`).

use k8s_openapi::api::core::v1::Pod;

use crate::pod::life::Verdict;

/// Settings that have no effect on other pods and can't be used to take the node's resources.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The namespace that a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// What a node allows beyond the safe ones: names, and prefixes that end in `*`.
#[derive(Clone, Debug, Default)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Errors: a pattern that may match settings of the whole machine.
    pub fn parse(patterns: &[String]) -> Result<Self, String> {
        let all: Vec<String> = patterns.iter().map(|pattern| normalized(pattern)).collect();
        match all.iter().find(|pattern| namespace_of(pattern.trim_end_matches('*')).is_none()) {
            Some(pattern) => Err(format!(
                "the sysctls {pattern:?} are not known to be namespaced: they would be set for the whole machine"
            )),
            None => Ok(Self(all)),
        }
    }

    fn has(&self, name: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        SAFE.contains(&name) || self.0.iter().any(matches)
    }

    /// Refuses a pod that asks for another setting, or for one of a namespace that it shares with the machine.
    /// `own_network`: pods of this node have one.
    pub fn admit(&self, pod: &Pod, own_network: bool) -> Result<(), Verdict> {
        let shares = |namespace| match namespace {
            Namespace::Ipc => pod.spec.as_ref().is_some_and(|spec| spec.host_ipc == Some(true)),
            Namespace::Net => {
                !own_network || pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
            }
        };
        for name in names(pod) {
            let why = match namespace_of(&name) {
                _ if !self.has(&name) => "not allowlisted",
                Some(Namespace::Net) if shares(Namespace::Net) => "not allowed with host net enabled",
                Some(Namespace::Ipc) if shares(Namespace::Ipc) => "not allowed with host ipc enabled",
                _ => continue,
            };
            return Err(Verdict::plain("SysctlForbidden", format!("forbidden sysctl: {name:?} {why}")));
        }
        Ok(())
    }
}

/// The settings that the pod asks for.
fn names(pod: &Pod) -> impl Iterator<Item = String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    context
        .into_iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| normalized(&sysctl.name))
}

/// Whether the pod asks for a setting of its network.
pub fn of_network(pod: &Pod) -> Option<String> {
    names(pod).find(|name| namespace_of(name) == Some(Namespace::Net))
}

/// With dots, however it was written: where a slash comes first, dots are part of a name.
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

fn namespace_of(name: &str) -> Option<Namespace> {
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    match name {
        "kernel.sem" => Some(Namespace::Ipc),
        name if ipc.iter().any(|prefix| name.starts_with(prefix)) => Some(Namespace::Ipc),
        name if name.starts_with("net.") => Some(Namespace::Net),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(sysctl: &str, more: &str) -> Pod {
        let yaml = format!(
            "spec: {{containers: [], securityContext: {{sysctls: [{{name: {sysctl}, value: '1'}}]}}{more}}}"
        );
        serde_yaml::from_str(&yaml).expect("a pod")
    }

    #[test]
    fn what_is_not_safe_must_be_allowed() {
        let patterns = ["kernel.msg*".to_owned(), "net/core/somaxconn".to_owned()];
        let allowed = Allowed::parse(&patterns).expect("namespaced");
        let verdict = |allowed: &Allowed, pod: &Pod, own_network| {
            allowed.admit(pod, own_network).err().map(|verdict| (verdict.reason, verdict.message))
        };
        let forbidden = |why: &str| Some(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {why}")));
        let none = Allowed::default();
        for safe in ["kernel.shm_rmid_forced", "net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies"] {
            assert_eq!(verdict(&none, &pod(safe, ""), true), None, "{safe}");
        }
        for unsafe_one in ["kernel.msgmax", "net.core.somaxconn"] {
            let want = forbidden(&format!("{unsafe_one:?} not allowlisted"));
            assert_eq!(verdict(&none, &pod(unsafe_one, ""), true), want);
            assert_eq!(verdict(&allowed, &pod(unsafe_one, ""), true), None);
        }
        let want = forbidden("\"vm.swappiness\" not allowlisted");
        assert_eq!(verdict(&allowed, &pod("vm.swappiness", ""), true), want);
        let want = forbidden("\"net.ipv4.tcp_syncookies\" not allowed with host net enabled");
        assert_eq!(verdict(&none, &pod("net.ipv4.tcp_syncookies", ", hostNetwork: true"), true), want);
        assert_eq!(verdict(&none, &pod("net.ipv4.tcp_syncookies", ""), false), want, "the node gives none");
        let want = forbidden("\"kernel.shm_rmid_forced\" not allowed with host ipc enabled");
        assert_eq!(verdict(&none, &pod("kernel.shm_rmid_forced", ", hostIPC: true"), true), want);
    }

    #[test]
    fn settings_of_the_machine_can_not_be_allowed() {
        for bad in ["vm.swappiness", "kernel.*", "*", "kernel.pid_max"] {
            let refused = Allowed::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(
                refused.starts_with(&format!("the sysctls {bad:?} are not known to be namespaced")),
                "{refused}"
            );
        }
    }
}
