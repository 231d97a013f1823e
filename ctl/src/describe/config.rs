//! Kinds with little to say: configuration, Services, Namespaces, and every kind that has no page of its own.

use serde_json::Value;

use super::sheet::{Sheet, items, plain};

/// A ConfigMap with its data.
pub fn config_map(sheet: &mut Sheet, object: &Value) {
    sheet.metadata(object);
    sheet.raw("\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        sheet.raw(&format!("{key}:\n----\n{}\n\n", plain(value)));
    }
    sheet.raw("\nBinaryData\n====");
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        sheet.raw(&format!("{key}: {} bytes", decoded_length(&plain(value))));
    }
    sheet.raw("\n");
}

/// A Secret with the sizes of its data, never the data.
pub fn secret(sheet: &mut Sheet, object: &Value) {
    sheet.metadata(object);
    sheet.line_or_none("Type", &object["type"]);
    sheet.raw("\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        sheet.line(key, format!("{} bytes", decoded_length(&plain(value))));
    }
}

/// The number of bytes that a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// A Service.
pub fn service(sheet: &mut Sheet, object: &Value) {
    let spec = &object["spec"];
    sheet.metadata(object);
    sheet.map("Selector", &spec["selector"], "=");
    sheet.line_or_none("Type", &spec["type"]);
    sheet.line_if("IP Family Policy", &spec["ipFamilyPolicy"]);
    sheet.line_or_none("IP", &spec["clusterIP"]);
    for port in items(&spec["ports"]) {
        let name = port["name"].as_str().unwrap_or("<unset>");
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        sheet.line("Port", format!("{name}  {}/{protocol}", plain(&port["port"])));
        sheet.line("TargetPort", format!("{}/{protocol}", plain(&port["targetPort"])));
        if !port["nodePort"].is_null() {
            sheet.line("NodePort", format!("{name}  {}/{protocol}", plain(&port["nodePort"])));
        }
    }
    sheet.line_if("Session Affinity", &spec["sessionAffinity"]);
}

/// A Namespace.
pub fn namespace(sheet: &mut Sheet, object: &Value) {
    sheet.line("Name", api::object::name(object));
    sheet.labels(object);
    sheet.line_or_none("Status", &object["status"]["phase"]);
    const COLUMNS: [(&str, &str); 4] =
        [("Type", "type"), ("Status", "status"), ("Reason", "reason"), ("Message", "message")];
    sheet.conditions(&object["status"]["conditions"], &COLUMNS);
}

/// Any other kind: its fields by name, as kubectl does for custom resources.
pub fn generic(sheet: &mut Sheet, object: &Value) {
    sheet.metadata(object);
    sheet.line("API Version", api::object::api_version(object));
    sheet.line("Kind", api::object::kind(object));
    const SHOWN: [&str; 3] = ["apiVersion", "kind", "metadata"];
    sheet.title("Metadata");
    sheet.deeper(|sheet| {
        for name in
            ["creationTimestamp", "generation", "resourceVersion", "uid", "deletionTimestamp", "finalizers"]
        {
            field(sheet, name, &object["metadata"][name]);
        }
    });
    for (name, value) in object.as_object().into_iter().flatten() {
        if !SHOWN.contains(&name.as_str()) {
            field(sheet, name, value);
        }
    }
}

fn field(sheet: &mut Sheet, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            sheet.title(&title(name));
            sheet.deeper(|sheet| map.iter().for_each(|(name, value)| field(sheet, name, value)));
        }
        Value::Array(list) => {
            sheet.title(&title(name));
            sheet.deeper(|sheet| list.iter().for_each(|item| list_item(sheet, item)));
        }
        other => sheet.line(&title(name), plain(other)),
    }
}

fn list_item(sheet: &mut Sheet, item: &Value) {
    match item {
        Value::Object(map) => map.iter().for_each(|(name, value)| field(sheet, name, value)),
        other => sheet.raw(&plain(other)),
    }
}

/// `holderIdentity` becomes `Holder Identity`; a key that is no field name stays as it is.
fn title(name: &str) -> String {
    if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return name.to_owned();
    }
    let mut title = String::new();
    let mut before_is_lower = false;
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && before_is_lower {
            title.push(' ');
        }
        title.push(if i == 0 { c.to_ascii_uppercase() } else { c });
        before_is_lower = !c.is_ascii_uppercase();
    }
    let words: Vec<String> = title.split(' ').map(acronym).collect();
    words.join(" ")
}

/// The words that kubectl writes in capitals.
fn acronym(word: &str) -> String {
    match word {
        "Api" | "Url" | "Uid" | "Osb" | "Guid" => word.to_ascii_uppercase(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_become_titles() {
        for (name, expected) in [
            ("holderIdentity", "Holder Identity"),
            ("podIP", "Pod IP"),
            ("a.b/c", "a.b/c"),
            ("uid", "UID"),
            ("apiGroups", "API Groups"),
        ] {
            assert_eq!(title(name), expected);
        }
    }

    #[test]
    fn base64_texts_have_the_length_of_what_they_hold() {
        for (text, length) in [("", 0), ("YQ==", 1), ("YWI=", 2), ("YWJj", 3), ("YWJjZA==", 4)] {
            assert_eq!(decoded_length(text), length, "{text}");
        }
    }
}
