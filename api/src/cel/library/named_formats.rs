//! Formats with names, such as `format.dns1123Label()`.

use std::sync::Arc;

use super::Answer;
use crate::cel::value::Value;
use crate::name;

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let known = |wanted: &str| NAMES.iter().find(|name| **name == wanted).copied();
    Some(match (name.strip_prefix("format."), args) {
        (Some("named"), [Value::String(wanted)]) => {
            Ok(Value::Optional(known(wanted).map(|name| Arc::new(Value::Format(name)))))
        }
        (Some(wanted), []) => Ok(Value::Format(known(wanted)?)),
        (None, [Value::Format(format), Value::String(text)]) if name == "validate" => {
            let wrong = problem(format, text).map(|why| Arc::new(Value::list(vec![Value::text(why)])));
            Ok(Value::Optional(wrong))
        }
        _ => return None,
    })
}

/// What is wrong with a text; nothing if it has the format.
fn problem(format: &str, text: &str) -> Option<String> {
    let prefix = || format!("{}a", text.trim_end_matches('-'));
    let checked = match format {
        "dns1123Label" => name::dns1123_label(text),
        "dns1123Subdomain" => name::dns1123_subdomain(text),
        "dns1035Label" => name::dns1035_label(text),
        "qualifiedName" => name::qualified_name(text),
        "dns1123LabelPrefix" => name::dns1123_label(&prefix()),
        "dns1123SubdomainPrefix" => name::dns1123_subdomain(&prefix()),
        "dns1035LabelPrefix" => name::dns1035_label(&prefix()),
        "labelValue" => name::label_value(text),
        other => {
            let fits = crate::crd::format_holds(other, text);
            return (!fits).then(|| format!("must be a valid {other}: {text:?}"));
        }
    };
    checked.err().map(|why| why.to_string())
}
