//! Pods, and the pod templates of workloads.

use jiff::Timestamp;
use serde_json::Value;

use super::sheet::{Sheet, items, plain, time};

/// A pod.
pub fn describe(sheet: &mut Sheet, pod: &Value, now: Timestamp) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    sheet.line("Name", api::object::name(pod));
    sheet.line("Namespace", api::object::namespace(pod));
    sheet.line("Priority", spec["priority"].as_i64().unwrap_or(0).to_string());
    sheet.line_if("Service Account", &spec["serviceAccountName"]);
    sheet.line("Node", node(pod));
    sheet.line_if("Start Time", &started(status));
    sheet.labels(pod);
    state(sheet, pod, now);
    sheet.line_if("Reason", &status["reason"]);
    sheet.line_if("Message", &status["message"]);
    sheet.line("IP", plain(&status["podIP"]));
    if let Some(owner) = api::object::controller_of(pod) {
        sheet.line("Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
    containers(sheet, "Init Containers", &spec["initContainers"], &status["initContainerStatuses"]);
    containers(sheet, "Containers", &spec["containers"], &status["containerStatuses"]);
    sheet.conditions(&status["conditions"], &[("Type", "type"), ("Status", "status")]);
    volumes(sheet, &spec["volumes"]);
    sheet.line_if("QoS Class", &status["qosClass"]);
    sheet.map("Node-Selectors", &spec["nodeSelector"], "=");
    sheet.lines("Tolerations", &items(&spec["tolerations"]).iter().map(toleration).collect::<Vec<_>>());
}

fn started(status: &Value) -> Value {
    if status["startTime"].is_null() { Value::Null } else { time(&status["startTime"]).into() }
}

fn node(pod: &Value) -> String {
    match (pod["spec"]["nodeName"].as_str(), pod["status"]["hostIP"].as_str()) {
        (Some(node), Some(address)) => format!("{node}/{address}"),
        (Some(node), None) => format!("{node}/"),
        (None, _) => "<none>".to_owned(),
    }
}

fn state(sheet: &mut Sheet, pod: &Value, now: Timestamp) {
    match api::object::deletion_timestamp(pod) {
        Some(deleted) => {
            let since = api::time::age(deleted, now);
            sheet.line("Status", format!("Terminating (lasts {since})"));
            let grace = api::object::deletion_grace_period_seconds(pod).unwrap_or(0);
            sheet.line("Termination Grace Period", format!("{grace}s"));
        }
        None => sheet.line("Status", plain(&pod["status"]["phase"])),
    }
}

fn containers(sheet: &mut Sheet, title: &str, containers: &Value, statuses: &Value) {
    if items(containers).is_empty() {
        return;
    }
    sheet.title(title);
    for container in items(containers) {
        let status = items(statuses).iter().find(|status| status["name"] == container["name"]);
        sheet.deeper(|sheet| {
            sheet.title(&plain(&container["name"]));
            sheet.deeper(|sheet| one_container(sheet, container, status));
        });
    }
}

fn one_container(sheet: &mut Sheet, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        sheet.line("Container ID", plain(&status["containerID"]));
    }
    sheet.line("Image", plain(&container["image"]));
    ports(sheet, container);
    arguments(sheet, "Command", &container["command"]);
    arguments(sheet, "Args", &container["args"]);
    if let Some(status) = status {
        run(sheet, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
            run(sheet, "Last State", &status["lastState"]);
        }
        sheet.line("Ready", if status["ready"] == true { "True" } else { "False" });
        sheet.line("Restart Count", plain(&status["restartCount"]));
    }
    resources(sheet, "Limits", &container["resources"]["limits"]);
    resources(sheet, "Requests", &container["resources"]["requests"]);
    for (name, title) in
        [("livenessProbe", "Liveness"), ("readinessProbe", "Readiness"), ("startupProbe", "Startup")]
    {
        if container[name].is_object() {
            sheet.line(title, probe(&container[name]));
        }
    }
    environment(sheet, container);
    mounts(sheet, &container["volumeMounts"]);
}

fn ports(sheet: &mut Sheet, container: &Value) {
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        format!("{}/{protocol}", plain(&port["containerPort"]))
    };
    let ports: Vec<String> = items(&container["ports"]).iter().map(port).collect();
    sheet.line("Port", if ports.is_empty() { "<none>".to_owned() } else { ports.join(", ") });
}

fn arguments(sheet: &mut Sheet, name: &str, list: &Value) {
    if items(list).is_empty() {
        return;
    }
    sheet.title(name);
    sheet.deeper(|sheet| items(list).iter().for_each(|word| sheet.raw(&plain(word))));
}

fn run(sheet: &mut Sheet, name: &str, state: &Value) {
    let field = |sheet: &mut Sheet, title: &str, value: &Value| {
        if !value.is_null() {
            sheet.line(&format!("  {title}"), plain(value));
        }
    };
    let (running, waiting, ended) = (&state["running"], &state["waiting"], &state["terminated"]);
    if running.is_object() {
        sheet.line(name, "Running");
        sheet.line("  Started", time(&running["startedAt"]));
    } else if ended.is_object() {
        sheet.line(name, "Terminated");
        field(sheet, "Reason", &ended["reason"]);
        field(sheet, "Message", &ended["message"]);
        field(sheet, "Exit Code", &ended["exitCode"]);
        field(sheet, "Signal", &ended["signal"]);
        sheet.line("  Started", time(&ended["startedAt"]));
        sheet.line("  Finished", time(&ended["finishedAt"]));
    } else {
        sheet.line(name, "Waiting");
        field(sheet, "Reason", &waiting["reason"]);
        field(sheet, "Message", &waiting["message"]);
    }
}

fn resources(sheet: &mut Sheet, name: &str, resources: &Value) {
    let Some(resources) = resources.as_object().filter(|map| !map.is_empty()) else { return };
    sheet.title(name);
    sheet.deeper(|sheet| resources.iter().for_each(|(name, value)| sheet.line(name, plain(value))));
}

/// `exec [cat /ok] delay=0s timeout=1s period=10s #success=1 #failure=3`
fn probe(probe: &Value) -> String {
    let number = |name: &str, default: i64| probe[name].as_i64().unwrap_or(default);
    let how = if probe["exec"].is_object() {
        let words: Vec<String> = items(&probe["exec"]["command"]).iter().map(plain).collect();
        format!("exec [{}]", words.join(" "))
    } else if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", plain(&get["host"]), plain(&get["port"]), plain(&get["path"]))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", plain(&probe["tcpSocket"]["host"]), plain(&probe["tcpSocket"]["port"]))
    } else {
        format!("grpc <pod>:{}", plain(&probe["grpc"]["port"]))
    };
    format!(
        "{how} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn environment(sheet: &mut Sheet, container: &Value) {
    let from = items(&container["envFrom"]);
    if !from.is_empty() {
        sheet.title("Environment Variables from");
        sheet.deeper(|sheet| from.iter().for_each(|source| env_source(sheet, source)));
    }
    let variables = items(&container["env"]);
    if variables.is_empty() {
        return sheet.line("Environment", "<none>");
    }
    sheet.title("Environment");
    sheet.deeper(|sheet| {
        variables.iter().for_each(|variable| sheet.line(&plain(&variable["name"]), env_value(variable)));
    });
}

fn env_source(sheet: &mut Sheet, source: &Value) {
    for (field, word) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
        let reference = &source[field];
        if reference.is_object() {
            let optional = reference["optional"] == true;
            sheet.raw(&format!("{}\t{word}\tOptional: {optional}", plain(&reference["name"])));
        }
    }
}

fn env_value(variable: &Value) -> String {
    let from = &variable["valueFrom"];
    let key = |reference: &Value, word: &str| {
        let optional = reference["optional"] == true;
        format!(
            "<set to the key '{}' {word} '{}'>  Optional: {optional}",
            plain(&reference["key"]),
            plain(&reference["name"])
        )
    };
    if from["fieldRef"].is_object() {
        let field = &from["fieldRef"];
        let version = field["apiVersion"].as_str().unwrap_or("v1");
        format!(" ({version}:{})", plain(&field["fieldPath"]))
    } else if from["resourceFieldRef"].is_object() {
        let field = &from["resourceFieldRef"];
        format!("{} ({})", plain(&field["divisor"]), plain(&field["resource"]))
    } else if from["configMapKeyRef"].is_object() {
        key(&from["configMapKeyRef"], "of config map")
    } else if from["secretKeyRef"].is_object() {
        key(&from["secretKeyRef"], "in secret")
    } else {
        plain(&variable["value"])
    }
}

fn mounts(sheet: &mut Sheet, mounts: &Value) {
    if items(mounts).is_empty() {
        return sheet.line("Mounts", "<none>");
    }
    sheet.title("Mounts");
    for mount in items(mounts) {
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        sheet.deeper(|sheet| {
            sheet.raw(&format!("{} from {} ({mode})", plain(&mount["mountPath"]), plain(&mount["name"])))
        });
    }
}

fn volumes(sheet: &mut Sheet, volumes: &Value) {
    if items(volumes).is_empty() {
        return sheet.line("Volumes", "<none>");
    }
    sheet.title("Volumes");
    for volume in items(volumes) {
        let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
        sheet.deeper(|sheet| {
            sheet.title(&plain(&volume["name"]));
            let Some((kind, source)) = source else { return };
            sheet.deeper(|sheet| {
                sheet.line("Type", kind);
                sheet.line_if("Name", &source["name"]);
                sheet.line_if("SecretName", &source["secretName"]);
                sheet.line_if("Path", &source["path"]);
            });
        });
    }
}

fn toleration(toleration: &Value) -> String {
    let mut text = plain(&toleration["key"]);
    if let Some(value) = toleration["value"].as_str() {
        text.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"].as_str() {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && toleration["value"].is_null() {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

/// The pod template of a workload.
pub fn template(sheet: &mut Sheet, template: &Value) {
    sheet.title("Pod Template");
    sheet.deeper(|sheet| {
        sheet.map("Labels", &template["metadata"]["labels"], "=");
        if template["metadata"]["annotations"].is_object() {
            sheet.map("Annotations", &template["metadata"]["annotations"], ": ");
        }
        sheet.line_if("Service Account", &template["spec"]["serviceAccountName"]);
        containers(sheet, "Init Containers", &template["spec"]["initContainers"], &Value::Null);
        containers(sheet, "Containers", &template["spec"]["containers"], &Value::Null);
        volumes(sheet, &template["spec"]["volumes"]);
        sheet.map("Node-Selectors", &template["spec"]["nodeSelector"], "=");
        let tolerations = items(&template["spec"]["tolerations"]);
        sheet.lines("Tolerations", &tolerations.iter().map(toleration).collect::<Vec<_>>());
    });
}
