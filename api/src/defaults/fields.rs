//! Filling in one field at a time.
//!
//! As in Go, an absent text and an empty one are the same; for everything else only absence counts.

use serde_json::{Map, Value};

/// Fills fields of a JSON object; on anything but an object nothing happens.
pub(super) trait Defaults {
    /// Sets a field that is absent.
    fn or_insert(&mut self, key: &str, value: impl Into<Value>);
    /// Sets a field whatever it is.
    fn set(&mut self, key: &str, value: Value);
    /// Sets a text that is absent or empty.
    fn text(&mut self, key: &str, text: &str);
    /// Removes a field.
    fn remove(&mut self, key: &str);
    /// Makes an absent map.
    fn map(&mut self, key: &str);
    /// Works on the map below `key`, making it if it is absent.
    fn under(&mut self, key: &str, fill: impl FnOnce(&mut Value));
    /// Works on the value below `key`, if it is there.
    fn within(&mut self, key: &str, fill: impl FnOnce(&mut Value));
    /// Works on each item of the list below `key`.
    fn each(&mut self, key: &str, fill: impl FnMut(&mut Value));
}

impl Defaults for Value {
    fn or_insert(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(map) = self.as_object_mut().filter(|map| !map.contains_key(key)) {
            map.insert(key.into(), value.into());
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        if let Some(map) = self.as_object_mut() {
            map.insert(key.into(), value);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        if let Some(map) = self.as_object_mut().filter(|map| map.get(key).is_none_or(|value| value == "")) {
            map.insert(key.into(), text.into());
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(map) = self.as_object_mut() {
            map.remove(key);
        }
    }

    fn map(&mut self, key: &str) {
        self.or_insert(key, Map::new());
    }

    fn under(&mut self, key: &str, fill: impl FnOnce(&mut Value)) {
        self.map(key);
        self.within(key, fill);
    }

    fn within(&mut self, key: &str, fill: impl FnOnce(&mut Value)) {
        if let Some(value) = self.get_mut(key) {
            fill(value);
        }
    }

    fn each(&mut self, key: &str, fill: impl FnMut(&mut Value)) {
        let items = self.get_mut(key).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(fill);
    }
}

/// A text field, or nothing.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
