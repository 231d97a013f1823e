//! `metadata.managedFields`: who owns which parts, as an object carries it.

use serde_json::{Map, Value};

use super::set::FieldSet;

/// Owners by updates beyond this number are joined into one, the oldest first (upstream: 10).
const MAX_UPDATE_ENTRIES: usize = 10;
/// Whom the joined ones are attributed to.
const ANCIENT: &str = "ancient-changes";

/// How somebody became an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who owns: what is told apart in `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The name that the client gave, or the first word of its User-Agent.
    pub name: String,
    /// How it wrote.
    pub operation: Operation,
    /// The version in which it wrote.
    pub api_version: String,
    /// The subresource that it wrote to; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// Whether both are the same owner: one who applies stays the same in another version.
    pub fn is(&self, other: &Manager) -> bool {
        let same = self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource;
        same && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As upstream names an owner in a conflict.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// An owner with what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When it last changed something, RFC 3339.
    pub time: String,
    /// What.
    pub fields: FieldSet,
}

/// All owners of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    /// The owners; no two are the same.
    pub entries: Vec<Entry>,
}

impl ManagedFields {
    /// Reads `metadata.managedFields`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn decode(list: &Value) -> Result<Self, String> {
        let entries = match list {
            Value::Null => Vec::new(),
            Value::Array(items) => items.iter().map(decode_entry).collect::<Result<_, _>>()?,
            _ => return Err("must be a list".into()),
        };
        Ok(Self { entries })
    }

    /// The form of `metadata.managedFields`: those who apply first, then by time and name.
    pub fn encode(mut self) -> Value {
        self.join_ancient();
        self.entries.sort_by(|a, b| {
            let key = |e: &Entry| {
                (e.manager.operation, e.time.clone(), e.manager.name.clone(), e.manager.subresource.clone())
            };
            key(a).cmp(&key(b))
        });
        Value::Array(self.entries.iter().map(encode_entry).collect())
    }

    /// The entry of this owner.
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.manager.is(manager))
    }

    /// Replaces or adds an entry; an empty one is removed.
    pub fn set(&mut self, entry: Entry) {
        self.entries.retain(|old| !old.manager.is(&entry.manager));
        if !entry.fields.is_empty() {
            self.entries.push(entry);
        }
    }

    fn join_ancient(&mut self) {
        let updates = |entry: &&Entry| entry.manager.operation == Operation::Update;
        let count = self.entries.iter().filter(updates).count();
        if count <= MAX_UPDATE_ENTRIES {
            return;
        }
        let (mut old, keep): (Vec<Entry>, Vec<Entry>) =
            self.entries.drain(..).partition(|entry| entry.manager.operation == Operation::Update);
        old.sort_by(|a, b| a.time.cmp(&b.time));
        let newest = old.split_off(count - MAX_UPDATE_ENTRIES + 1);
        self.entries = keep;
        self.entries.extend(newest);
        for entry in old {
            let manager = Manager { name: ANCIENT.into(), subresource: String::new(), ..entry.manager };
            let fields = self.get(&manager).map_or_else(FieldSet::default, |known| known.fields.clone());
            self.set(Entry { manager, time: entry.time, fields: fields.union(&entry.fields) });
        }
    }
}

fn decode_entry(item: &Value) -> Result<Entry, String> {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let operation = match item["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        other => return Err(format!("operation must be `Apply` or `Update`, not {other:?}")),
    };
    if let Some(kind) = item["fieldsType"].as_str()
        && kind != "FieldsV1"
    {
        return Err(format!("fieldsType must be `FieldsV1`, not {kind:?}"));
    }
    let manager = Manager {
        name: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
    };
    let fields = match &item["fieldsV1"] {
        Value::Null => FieldSet::default(),
        fields => FieldSet::from_json(fields)?,
    };
    Ok(Entry { manager, time: text("time"), fields })
}

fn encode_entry(entry: &Entry) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, text: &str| {
        if !text.is_empty() {
            out.insert(name.into(), Value::from(text));
        }
    };
    put("manager", &entry.manager.name);
    put("operation", if entry.manager.operation == Operation::Apply { "Apply" } else { "Update" });
    put("apiVersion", &entry.manager.api_version);
    put("subresource", &entry.manager.subresource);
    put("time", &entry.time);
    put("fieldsType", "FieldsV1");
    out.insert("fieldsV1".into(), entry.fields.to_json());
    Value::Object(out)
}
