//! The checks of `baseline`.

use serde_json::Value;

use super::{Pod, Violation, containers, name, plural, quoted, setters, sorted};

/// The capabilities that a container may ask for: what container engines give to everybody, but for `NET_RAW`,
/// with which a container can speak in another's name.
pub const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel parameters of the pod alone, and since which version they count as harmless.
const SYSCTLS: [(&str, u16); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_notsent_lowat", 37),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
];
const SELINUX_TYPES: [(&str, u16); 5] = [
    ("", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_t", 0),
    ("container_engine_t", 31),
];
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub(super) fn app_armor_profile(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let unfit = |holder: &Value| {
        let kind = holder["securityContext"]["appArmorProfile"]["type"].as_str();
        kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost")).map(str::to_owned)
    };
    let of_pod = unfit(pod.spec);
    let bad: Vec<&str> = pod.named(|container| unfit(container).is_some());
    let fit = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let annotated = annotations
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !fit(value))
        .map(|(key, value)| format!("{key}={value:?}"));
    let annotated = sorted(annotated);
    let mut values = sorted(pod.containers().filter_map(unfit).chain(of_pod.clone()));
    let by_field = Some(setters(of_pod.is_some(), &bad)).filter(|text| !text.is_empty());
    let by_annotation =
        (!annotated.is_empty()).then(|| plural("annotation", "annotations", annotated.len()).to_owned());
    let who: Vec<String> = by_field.into_iter().chain(by_annotation).collect();
    values.extend(annotated);
    if values.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Violation::new(
        reason,
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)),
    )
}

pub(super) fn capabilities(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let added = |container: &Value| -> Vec<String> {
        let all = texts(&container["securityContext"]["capabilities"]["add"]);
        all.filter(|capability| !CAPABILITIES.contains(capability)).map(str::to_owned).collect()
    };
    let bad = pod.named(|container| !added(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    let which = sorted(pod.containers().flat_map(added));
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&bad),
        quoted(&which)
    );
    Violation::new("non-default capabilities", detail)
}

pub(super) fn host_namespaces(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let used = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let used: Vec<String> = used.map(|field| format!("{field}=true")).collect();
    (!used.is_empty()).then(|| Violation::new("host namespaces", used.join(", "))).flatten()
}

pub(super) fn host_path_volumes(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let bad: Vec<&str> = pod.volumes().filter(|volume| !volume["hostPath"].is_null()).map(name).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad));
    (!bad.is_empty()).then(|| Violation::new("hostPath volumes", detail())).flatten()
}

pub(super) fn host_ports(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<i64> {
        let all = container["ports"].as_array().into_iter().flatten();
        all.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let bad = pod.named(|container| !ports(container).is_empty());
    if bad.is_empty() {
        return None;
    }
    // Upstream sorts them as texts.
    let which = sorted(pod.containers().flat_map(ports).map(|port| port.to_string()));
    let uses = plural("uses", "use", bad.len());
    let what = plural("hostPort", "hostPorts", which.len());
    Violation::new("hostPort", format!("{} {uses} {what} {}", containers(&bad), which.join(", ")))
}

pub(super) fn host_probes(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let hosts =
            handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| handler[kind]["host"].as_str()));
        hosts.flatten().filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad = sorted(pod.named(|container| !hosts(container).is_empty()));
    if bad.is_empty() {
        return None;
    }
    let which = sorted(pod.containers().flat_map(hosts));
    let uses = plural("uses", "use", bad.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", which.len());
    Violation::new(
        "probe or lifecycle host",
        format!("{} {uses} {what} {}", containers(&bad), quoted(&which)),
    )
}

pub(super) fn privileged(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let bad = pod.named(|container| container["securityContext"]["privileged"] == true);
    let detail = || format!("{} must not set securityContext.privileged=true", containers(&bad));
    (!bad.is_empty()).then(|| Violation::new("privileged", detail())).flatten()
}

pub(super) fn proc_mount(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if pod.has_own_users(minor) { None } else { proc_mount_always(pod, minor) }
}

/// Whoever the pod's users are.
pub(super) fn proc_mount_always(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let unfit = |container: &Value| {
        let kind = container["securityContext"]["procMount"].as_str();
        kind.filter(|kind| *kind != "Default").map(str::to_owned)
    };
    let bad = pod.named(|container| unfit(container).is_some());
    if bad.is_empty() {
        return None;
    }
    let which = sorted(pod.containers().filter_map(unfit));
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&which));
    Violation::new("procMount", detail)
}

pub(super) fn se_linux_options(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    let options = |holder: &Value| holder["securityContext"]["seLinuxOptions"].clone();
    let text = |options: &Value, field: &str| options[field].as_str().unwrap_or_default().to_owned();
    let bad_type = |options: &Value| {
        !SELINUX_TYPES.iter().any(|(kind, since)| *kind == text(options, "type") && minor >= *since)
    };
    let unfit = |options: &Value| {
        bad_type(options) || !text(options, "user").is_empty() || !text(options, "role").is_empty()
    };
    let bad = pod.named(|container| unfit(&options(container)));
    let of_pod = unfit(&options(pod.spec));
    if bad.is_empty() && !of_pod {
        return None;
    }
    let all: Vec<Value> = pod.containers().map(options).chain([options(pod.spec)]).collect();
    let types = sorted(all.iter().filter(|options| bad_type(options)).map(|options| text(options, "type")));
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let who = setters(of_pod, &bad);
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Violation::new("seLinuxOptions", detail)
}

/// Whether a profile's type is given and none of the safe ones.
pub(super) fn unfit_seccomp(holder: &Value) -> Option<String> {
    let profile = &holder["securityContext"]["seccompProfile"];
    let kind = profile["type"].as_str().unwrap_or_default();
    (!profile.is_null() && !matches!(kind, "Localhost" | "RuntimeDefault")).then(|| kind.to_owned())
}

/// Who sets an unsafe profile, if anybody does.
pub(super) fn unfit_seccomp_setters(pod: &Pod<'_>) -> Option<Violation> {
    let of_pod = unfit_seccomp(pod.spec);
    let bad = pod.named(|container| unfit_seccomp(container).is_some());
    if bad.is_empty() && of_pod.is_none() {
        return None;
    }
    let who = setters(of_pod.is_some(), &bad);
    let which = sorted(pod.containers().filter_map(unfit_seccomp).chain(of_pod));
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&which));
    Violation::new("seccompProfile", detail)
}

pub(super) fn seccomp_profile(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if minor >= 19 { unfit_seccomp_setters(pod) } else { seccomp_annotations(pod) }
}

/// Before there was a field.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let fit = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys = pod.containers().map(|container| format!("{SECCOMP_CONTAINER}{}", name(container)));
    let bad = keys.chain([SECCOMP_POD.to_owned()]).filter_map(|key| {
        let value = pod.metadata["annotations"][&key].as_str().filter(|value| !fit(value))?;
        Some(format!("{key}={value:?}"))
    });
    let bad = sorted(bad);
    let detail =
        || format!("forbidden {} {}", plural("annotation", "annotations", bad.len()), bad.join(", "));
    (!bad.is_empty()).then(|| Violation::new("seccompProfile", detail())).flatten()
}

pub(super) fn sysctls(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    let allowed = |sysctl: &str| SYSCTLS.iter().any(|(known, since)| *known == sysctl && minor >= *since);
    let all = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(name);
    let bad: Vec<&str> = all.filter(|sysctl| !allowed(sysctl)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", "))).flatten()
}

pub(super) fn windows_host_process(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let is_set = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let bad = pod.named(is_set);
    let who = setters(is_set(pod.spec), &bad);
    let detail = || format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    (!who.is_empty()).then(|| Violation::new("hostProcess", detail())).flatten()
}
