//! One step of a path into an object, as `managedFields` writes it.

use std::fmt;

use serde_json::Value;

/// A step from a value to a part of it. The order is that of the encoded form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// The field of a struct or the key of a map: `f:NAME`.
    Field(String),
    /// An item of a list of maps, by the values of its keys, as canonical JSON: `k:{"name":"a"}`.
    Key(String),
    /// An item of a set, as canonical JSON: `v:"a"`.
    Item(String),
    /// An item of a list by its place: `i:0`.
    Index(usize),
}

impl Element {
    /// A field.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The item of a set.
    pub fn item(value: &Value) -> Self {
        Self::Item(value.to_string())
    }

    /// The encoded form.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Item(value) => format!("v:{value}"),
            Self::Index(place) => format!("i:{place}"),
        }
    }

    /// Reads the encoded form; `None` if it is none.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let canonical = |text: &str| serde_json::from_str::<Value>(text).ok().map(|value| value.to_string());
        match kind {
            "f" => Some(Self::Field(rest.into())),
            "k" => canonical(rest).filter(|text| text.starts_with('{')).map(Self::Key),
            "v" => canonical(rest).map(Self::Item),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

impl fmt::Display for Element {
    /// As upstream writes a path in a conflict: `.spec`, `[name="a"]`, `[="a"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Item(value) => write!(f, "[={value}]"),
            Self::Index(place) => write!(f, "[{place}]"),
            Self::Key(keys) => match serde_json::from_str(keys) {
                Ok(Value::Object(keys)) => {
                    let pairs: Vec<String> =
                        keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    write!(f, "[{}]", pairs.join(","))
                }
                _ => write!(f, "[{keys}]"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for text in
            ["f:spec", "f:a.b/c:d", r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"v:"x""#, "v:3", "i:7"]
        {
            assert_eq!(Element::decode(text).map(|element| element.encode()).as_deref(), Some(text));
        }
        for text in ["", "x:1", "k:3", "v:{", "i:-1", "spec"] {
            assert_eq!(Element::decode(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_canonical_whatever_their_order() {
        let element = Element::decode(r#"k:{ "protocol":"TCP", "containerPort":80 }"#).unwrap();
        assert_eq!(element.to_string(), r#"[containerPort=80,protocol="TCP"]"#);
    }
}
