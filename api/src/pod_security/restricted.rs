//! The checks that `restricted` adds to `baseline`.

use serde_json::Value;

use super::{Pod, Violation, baseline, containers, name, plural, quoted, setters, sorted};

/// Volumes that hold nothing of the node.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Since this version what only Linux has isn't asked of pods for Windows.
const KNOWS_WINDOWS: u16 = 25;

pub(super) fn allow_privilege_escalation(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    let bad = pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    (!bad.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail())).flatten()
}

pub(super) fn capabilities(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    let list = |container: &Value, part: &str| -> Vec<String> {
        let all = container["securityContext"]["capabilities"][part].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let added = |container: &Value| {
        let mut all = list(container, "add");
        all.retain(|capability| capability != "NET_BIND_SERVICE");
        all
    };
    let keeping =
        pod.named(|container| !list(container, "drop").iter().any(|capability| capability == "ALL"));
    let adding = pod.named(|container| !added(container).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, containers(&keeping)));
    }
    if !adding.is_empty() {
        let which = quoted(&sorted(pod.containers().flat_map(added)));
        details.push(format!(
            "{} must not include {which} in securityContext.capabilities.add",
            containers(&adding)
        ));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; "))).flatten()
}

pub(super) fn volumes(pod: &Pod<'_>, _minor: u16) -> Option<Violation> {
    let kind = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        fields
            .filter(|field| *field != "name")
            .map(str::to_owned)
            .next()
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let is_bad = |volume: &&Value| !VOLUMES.iter().any(|kind| !volume[*kind].is_null());
    let bad: Vec<&Value> = pod.volumes().filter(is_bad).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|volume| name(volume)).collect();
    let kinds = sorted(bad.iter().map(|volume| kind(volume)));
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    Violation::new("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_own_users(minor) {
        return None;
    }
    let says = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let explicit =
        setters(says(pod.spec) == Some(false), &pod.named(|container| says(container) == Some(false)));
    if !explicit.is_empty() {
        return Violation::new(REASON, format!("{explicit} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.named(|container| says(container).is_none());
    if says(pod.spec) == Some(true) || silent.is_empty() {
        return None;
    }
    Violation::new(
        REASON,
        format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)),
    )
}

pub(super) fn run_as_user(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if pod.has_own_users(minor) {
        return None;
    }
    let is_root = |holder: &Value| holder["securityContext"]["runAsUser"].as_i64() == Some(0);
    let who = setters(is_root(pod.spec), &pod.named(is_root));
    (!who.is_empty())
        .then(|| Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
        .flatten()
}

pub(super) fn seccomp_profile(pod: &Pod<'_>, minor: u16) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    if let Some(violation) = baseline::unfit_seccomp_setters(pod) {
        return Some(violation);
    }
    let silent = pod.named(|container| container["securityContext"]["seccompProfile"].is_null());
    if !pod.spec["securityContext"]["seccompProfile"].is_null() || silent.is_empty() {
        return None;
    }
    let detail = format!(
        r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
        containers(&silent)
    );
    Violation::new("seccompProfile", detail)
}
