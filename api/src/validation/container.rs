//! Rules for containers: names, images, ports, environment, mounts.

use std::collections::BTreeSet;

use super::field::{Errors, Field};
use super::{probe, resources};
use crate::name;
use crate::status::FieldError;

pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// All containers of a pod spec; `volumes` are the names that mounts may use.
pub(super) fn containers(spec: &Field<'_>, volumes: &BTreeSet<&str>) -> Errors {
    let mut errors = spec.get("containers").present();
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for container in spec.get("containers").items() {
        errors.extend(common(&container, volumes, &mut names));
        errors.extend(probe::probes(&container));
        errors.extend(host_port_conflicts(&container, &mut host_ports));
    }
    for container in spec.get("initContainers").items() {
        errors.extend(common(&container, volumes, &mut names));
        errors.extend(init(&container));
    }
    for container in spec.get("ephemeralContainers").items() {
        errors.extend(common(&container, volumes, &mut names));
    }
    errors
}

fn common<'v>(container: &Field<'v>, volumes: &BTreeSet<&str>, names: &mut BTreeSet<&'v str>) -> Errors {
    let name = container.get("name");
    let mut errors = name.named(name::dns1123_label);
    if !name.is_empty() && !names.insert(name.text()) {
        errors.push(name.duplicate());
    }
    errors.extend(image(&container.get("image")));
    errors.extend(container.get("imagePullPolicy").one_of(&PULL_POLICIES));
    errors.extend(container.get("terminationMessagePolicy").one_of(&["FallbackToLogsOnError", "File"]));
    errors.extend(ports(&container.get("ports")));
    errors.extend(environment(container));
    errors.extend(mounts(&container.get("volumeMounts"), volumes));
    errors.extend(resources::requirements(&container.get("resources")));
    errors.extend(security(&container.get("securityContext")));
    errors
}

fn image(image: &Field<'_>) -> Errors {
    let text = image.text();
    match () {
        _ if text.is_empty() => vec![image.required("")],
        _ if text.trim() != text => vec![image.invalid("must not have leading or trailing whitespace")],
        _ => Errors::new(),
    }
}

/// Init containers run to their end, so nothing asks whether they live, except sidecars.
fn init(container: &Field<'_>) -> Errors {
    let restart = container.get("restartPolicy");
    if restart.text() == "Always" {
        return probe::probes(container);
    }
    let mut errors = restart.one_of(&["Always", "OnFailure", "Never"]);
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(name);
        if field.exists() {
            errors.push(field.forbidden("may not be set for init containers without restartPolicy=Always"));
        }
    }
    errors
}

fn ports(ports: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for port in ports.items() {
        let (name, number) = (port.get("name"), port.get("containerPort"));
        errors.extend(name.checked(name::port_name));
        if !name.is_empty() && !names.insert(name.text()) {
            errors.push(name.duplicate());
        }
        match number.is_empty() {
            true => errors.push(number.required("")),
            false => errors.extend(number.between(1, 65535)),
        }
        let host = port.get("hostPort");
        if !host.is_empty() {
            errors.extend(host.between(1, 65535));
        }
        errors.extend(port.get("protocol").one_of(&PROTOCOLS));
    }
    errors
}

fn host_port_conflicts<'v>(container: &Field<'v>, taken: &mut BTreeSet<(&'v str, &'v str, i64)>) -> Errors {
    let mut errors = Errors::new();
    for port in container.get("ports").items() {
        let host = port.get("hostPort");
        let Some(number) = host.int().filter(|number| *number != 0) else { continue };
        let address = port.get("hostIP").text();
        if !taken.insert((port.get("protocol").text(), address, number)) {
            let text = format!("{}/{address}/{number}", port.get("protocol").text());
            errors.push(FieldError::duplicate(host.path, text));
        }
    }
    errors
}

fn environment(container: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for variable in container.get("env").items() {
        errors.extend(variable.get("name").named(name::env_name));
        errors.extend(value_from(&variable));
    }
    for source in container.get("envFrom").items() {
        errors.extend(source.get("prefix").checked(name::env_name));
        let references = ["configMapRef", "secretRef"].map(|name| source.get(name));
        match references.iter().filter(|reference| reference.exists()).count() {
            0 => errors.push(source.invalid("must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(source.invalid("may not have more than one field specified at a time")),
        }
        for reference in references.iter().filter(|reference| reference.exists()) {
            errors.extend(reference.get("name").named(name::dns1123_subdomain));
        }
    }
    errors
}

fn value_from(variable: &Field<'_>) -> Errors {
    let source = variable.get("valueFrom");
    if !source.exists() {
        return Errors::new();
    }
    let names = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<Field<'_>> = names.iter().map(|name| source.get(name)).filter(Field::exists).collect();
    let mut errors = Errors::new();
    match given.len() {
        0 => {
            let list = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(&source.path, "", format!("must specify one of: {list}")));
        }
        _ if !variable.get("value").is_empty() => {
            errors.push(FieldError::invalid(
                &source.path,
                "",
                "may not be specified when `value` is not empty",
            ));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(
            &source.path,
            "",
            "may not have more than one field specified at a time",
        )),
    }
    for reference in given {
        errors.extend(reference_errors(&reference));
    }
    errors
}

fn reference_errors(reference: &Field<'_>) -> Errors {
    match reference.path.rsplit('.').next() {
        Some("fieldRef") => reference.get("fieldPath").present(),
        Some("resourceFieldRef") => reference.get("resource").present(),
        Some("fileKeyRef") => reference.get("key").present(),
        _ => {
            let mut errors = reference.get("name").present();
            errors.extend(reference.get("key").named(name::config_key));
            errors
        }
    }
}

fn mounts(mounts: &Field<'_>, volumes: &BTreeSet<&str>) -> Errors {
    let mut errors = Errors::new();
    let mut paths = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        match name.text() {
            "" => errors.push(name.required("")),
            text if !volumes.contains(text) => errors.push(FieldError::not_found(&name.path, text)),
            _ => {}
        }
        match path.text() {
            "" => errors.push(path.required("")),
            text if !paths.insert(text) => errors.push(path.invalid("must be unique")),
            _ => {}
        }
        for key in ["subPath", "subPathExpr"] {
            errors.extend(relative_path(&mount.get(key)));
        }
        if !mount.get("subPath").is_empty() && !mount.get("subPathExpr").is_empty() {
            errors.push(mount.get("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive"));
        }
    }
    errors
}

/// A path that stays below where it begins.
pub(super) fn relative_path(path: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
    errors
}

fn security(context: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for id in ["runAsUser", "runAsGroup"] {
        errors.extend(context.get(id).between(0, i64::from(i32::MAX)));
    }
    let escalation = context.get("allowPrivilegeEscalation");
    if context.get("privileged").flag() && escalation.exists() && !escalation.flag() {
        errors
            .push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
    }
    errors
}
