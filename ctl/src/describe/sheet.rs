//! The lines of a description: names and values, deeper ones indented, columns aligned at the end.

use serde_json::Value;

use crate::print::elastic;

/// Text under construction.
#[derive(Debug, Default)]
pub struct Sheet {
    text: String,
    depth: usize,
}

impl Sheet {
    /// `Name:  value`
    pub fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let indent = "  ".repeat(self.depth);
        let mut lines = value.as_ref().lines();
        let first = lines.next().unwrap_or_default();
        self.text.push_str(&format!("{indent}{name}:\t{first}\n"));
        lines.for_each(|line| self.text.push_str(&format!("{indent}\t{line}\n")));
    }

    /// `Name:  value` if there is one.
    pub fn line_if(&mut self, name: &str, value: &Value) {
        if !value.is_null() {
            self.line(name, plain(value));
        }
    }

    /// `Name:  value`, or `<none>`.
    pub fn line_or_none(&mut self, name: &str, value: &Value) {
        self.line(name, if value.is_null() { "<none>".to_owned() } else { plain(value) });
    }

    /// `Name:` alone.
    pub fn title(&mut self, name: &str) {
        self.text.push_str(&format!("{}{name}:\n", "  ".repeat(self.depth)));
    }

    /// Text as it is, on a line of its own.
    pub fn raw(&mut self, text: &str) {
        text.lines().for_each(|line| self.text.push_str(&format!("{}{line}\n", "  ".repeat(self.depth))));
    }

    /// Cells of a table, two columns in.
    pub fn row(&mut self, cells: &[&str]) {
        self.text.push_str(&format!("{}  {}\n", "  ".repeat(self.depth), cells.join("\t")));
    }

    /// `Name:  a=1`, further pairs below the first.
    pub fn map(&mut self, name: &str, map: &Value, separator: &str) {
        let pairs = map.as_object().into_iter().flatten();
        let lines: Vec<String> =
            pairs.map(|(key, value)| format!("{key}{separator}{}", plain(value))).collect();
        self.lines(name, &lines);
    }

    /// `Name:  first`, further lines below the first.
    pub fn lines(&mut self, name: &str, lines: &[String]) {
        self.line(name, if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n") });
    }

    /// What `inner` writes stands deeper.
    pub fn deeper(&mut self, inner: impl FnOnce(&mut Self)) {
        self.depth += 1;
        inner(self);
        self.depth -= 1;
    }

    /// Name, namespace, labels and annotations, as most descriptions begin.
    pub fn metadata(&mut self, object: &Value) {
        self.line("Name", api::object::name(object));
        self.line_if("Namespace", &object["metadata"]["namespace"]);
        self.labels(object);
    }

    /// Labels and annotations.
    pub fn labels(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.map("Labels", &metadata["labels"], "=");
        let mut annotations = metadata["annotations"].clone();
        if let Some(map) = annotations.as_object_mut() {
            // kubectl hides what only apply reads.
            map.remove(crate::apply::last_applied::ANNOTATION);
        }
        self.map("Annotations", &annotations, ": ");
    }

    /// The conditions of a status.
    pub fn conditions(&mut self, conditions: &Value, columns: &[(&str, &str)]) {
        let Some(conditions) = conditions.as_array().filter(|list| !list.is_empty()) else { return };
        self.title("Conditions");
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let rules: Vec<String> = names.iter().map(|name| "-".repeat(name.len())).collect();
        self.row(&names);
        self.row(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        for condition in conditions {
            let cells: Vec<String> = columns.iter().map(|(_, field)| plain(&condition[*field])).collect();
            self.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// The aligned text.
    pub fn finish(self) -> String {
        elastic::align(&self.text)
    }
}

/// A value without quotes; nothing for null.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The items of a list; none if it isn't one.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// RFC 3339 as `Thu, 01 Jan 2026 00:00:00 +0000`, as kubectl prints times.
pub fn time(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    parsed.map_or_else(|| plain(value), |time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}
