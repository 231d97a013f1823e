//! Parts of an object in its JSON form, without building the rest of it.
//!
//! A selector compares a few fields and an index knows a pod's references; most of an object is who owns which
//! field, and status. Skipping that costs a tenth of building it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The object of which only what `pointers` lead to is there, where they lead to it in the whole one.
///
/// A pointer is as RFC 6901 has it, through objects only and without escapes.
///
/// # Errors
/// If `json` isn't JSON.
pub fn only(json: &[u8], pointers: &[&str]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Wanted { pointers: pointers.to_vec() }.deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

/// What is wanted of the value that comes next.
struct Wanted<'a> {
    /// From this value on; an empty one wants all of it.
    pointers: Vec<&'a str>,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        if self.pointers.iter().any(|pointer| pointer.is_empty()) {
            return serde::Deserialize::deserialize(reader);
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(wanted) = map.next_key_seed(Below(&self.pointers))? {
            match wanted {
                Some((name, pointers)) => {
                    found.insert(name, map.next_value_seed(Wanted { pointers })?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(found))
    }

    // Nothing else has anything below it that a pointer leads to.

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A member's name, with what is wanted below it; `None` if nothing is.
struct Below<'a, 'p>(&'p [&'a str]);

impl<'de, 'a> DeserializeSeed<'de> for Below<'a, '_> {
    type Value = Option<(String, Vec<&'a str>)>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Below<'a, '_> {
    type Value = Option<(String, Vec<&'a str>)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let below: Vec<_> = self.0.iter().filter_map(|pointer| rest(pointer, name)).collect();
        Ok((!below.is_empty()).then(|| (name.to_owned(), below)))
    }
}

/// The pointer below the member of this name; `None` if it leads elsewhere.
fn rest<'a>(pointer: &'a str, name: &str) -> Option<&'a str> {
    let rest = pointer.strip_prefix('/')?.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_named_is_there_and_nothing_else() {
        let json = br#"{"a":{"b":[1,{"x":2}],"bc":true,"c":{}},"d":"e","f":[{"b":1}],"g":null}"#;
        let read = |pointers: &[&str]| only(json, pointers).expect("well-formed").to_string();
        assert_eq!(read(&["/a/b"]), r#"{"a":{"b":[1,{"x":2}]}}"#);
        assert_eq!(read(&["/a/c", "/a", "/d"]), r#"{"a":{"b":[1,{"x":2}],"bc":true,"c":{}},"d":"e"}"#);
        assert_eq!(read(&["/f/b", "/d/e", "/g/h"]), r#"{"d":null,"f":null,"g":null}"#);
        assert_eq!(read(&["/nothing"]), "{}");
    }

    #[test]
    fn what_is_malformed_behind_what_is_named_is_refused() {
        assert!(only(br#"{"a":1,"b":}"#, &["/a"]).is_err());
        assert!(only(br#"{"a":1} x"#, &["/a"]).is_err());
    }

    proptest! {
        #[test]
        fn it_reads_what_the_whole_object_has(value in value(), pointers in pointers()) {
            let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
            let part = only(value.to_string().as_bytes(), &pointers).expect("well-formed");
            for pointer in pointers {
                prop_assert_eq!(through_objects(&part, pointer), through_objects(&value, pointer));
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-c]?".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn pointers() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("(/[a-c]{1,2}){1,3}", 0..4)
    }

    fn through_objects<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
        pointer.split('/').skip(1).try_fold(value, |value, name| value.as_object()?.get(name))
    }
}
