//! An OpenAPI v2 document as gnostic's protobuf messages, which is how client-go asks for it.
//!
//! The numbers of the fields are those of gnostic's `OpenAPIv2.proto`. Extensions are YAML texts there, and JSON is
//! YAML.

use serde_json::{Map, Value};

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, number: u8, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    fn bytes(mut self, number: u8, bytes: &[u8]) -> Self {
        self.tag(number, LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, number: u8, inner: Message) -> Self {
        self.bytes(number, &inner.0)
    }

    /// The text at a key, if there is one.
    fn text(self, number: u8, map: &Value, key: &str) -> Self {
        match map[key].as_str() {
            Some(text) => self.bytes(number, text.as_bytes()),
            None => self,
        }
    }

    fn texts(self, number: u8, list: &Value) -> Self {
        let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.fold(self, |message, text| message.bytes(number, text.as_bytes()))
    }

    fn flag(mut self, number: u8, map: &Value, key: &str) -> Self {
        if map[key] == true {
            self.tag(number, VARINT);
            self.varint(1);
        }
        self
    }

    fn integer(mut self, number: u8, map: &Value, key: &str) -> Self {
        if let Some(value) = map[key].as_u64() {
            self.tag(number, VARINT);
            self.varint(value);
        }
        self
    }

    fn double(mut self, number: u8, map: &Value, key: &str) -> Self {
        if let Some(value) = map[key].as_f64() {
            self.tag(number, FIXED_64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// Pairs of a name (1) and what `encode` makes of its value (2).
    fn named(self, number: u8, map: &Value, encode: fn(&Value) -> Message) -> Self {
        entries(map).fold(self, |message, (name, value)| {
            let pair = Message::default().bytes(1, name.as_bytes()).message(2, encode(value));
            message.message(number, pair)
        })
    }

    /// What begins with `x-`.
    fn extensions(self, number: u8, map: &Value) -> Self {
        let own = entries(map).filter(|(name, _)| name.starts_with("x-"));
        let own: Map<String, Value> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.named(number, &Value::Object(own), any)
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flatten()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The document as a message.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let info = Message::default().text(1, &document["info"], "title").text(2, &document["info"], "version");
    let paths = Message::default().named(2, &document["paths"], path_item);
    let definitions = Message::default().named(1, &document["definitions"], schema);
    Message::default()
        .text(1, document, "swagger")
        .message(2, info)
        .message(8, paths)
        .message(9, definitions)
        .0
}

fn path_item(item: &Value) -> Message {
    const OPERATIONS: [(&str, u8); 7] =
        [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    let given = OPERATIONS.into_iter().filter(|(name, _)| item[name].is_object());
    let message = given
        .fold(Message::default(), |message, (name, number)| message.message(number, operation(&item[name])));
    parameters(message, 9, &item["parameters"]).extensions(10, item)
}

fn operation(operation: &Value) -> Message {
    let message = Message::default()
        .text(3, operation, "description")
        .text(5, operation, "operationId")
        .texts(6, &operation["produces"])
        .texts(7, &operation["consumes"]);
    let responses = Message::default().named(1, &operation["responses"], response);
    parameters(message, 8, &operation["parameters"]).message(9, responses).extensions(13, operation)
}

fn parameters(message: Message, number: u8, list: &Value) -> Message {
    items(list)
        .fold(message, |message, one| message.message(number, Message::default().message(1, parameter(one))))
}

/// In the body (1), or not (2): in the query (3) or in the path (4), whose numbers are one apart from the type on.
fn parameter(parameter: &Value) -> Message {
    if parameter["in"] == "body" {
        let body = Message::default()
            .text(2, parameter, "name")
            .text(3, parameter, "in")
            .flag(4, parameter, "required")
            .message(5, schema(&parameter["schema"]));
        return Message::default().message(1, body);
    }
    let (place, kind, unique) = if parameter["in"] == "path" { (4, 5, 19) } else { (3, 6, 20) };
    let other = Message::default()
        .flag(1, parameter, "required")
        .text(2, parameter, "in")
        .text(3, parameter, "description")
        .text(4, parameter, "name")
        .text(kind, parameter, "type")
        .flag(unique, parameter, "uniqueItems");
    Message::default().message(2, Message::default().message(place, other))
}

fn response(response: &Value) -> Message {
    let mut message = Message::default().text(1, response, "description");
    if response["schema"].is_object() {
        message = message.message(2, Message::default().message(1, schema(&response["schema"])));
    }
    Message::default().message(1, message)
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default()
        .text(1, schema, "$ref")
        .text(2, schema, "format")
        .text(3, schema, "title")
        .text(4, schema, "description");
    if let Some(value) = schema.get("default") {
        message = message.message(5, any(value));
    }
    message = message
        .double(6, schema, "multipleOf")
        .double(7, schema, "maximum")
        .flag(8, schema, "exclusiveMaximum")
        .double(9, schema, "minimum")
        .flag(10, schema, "exclusiveMinimum")
        .integer(11, schema, "maxLength")
        .integer(12, schema, "minLength")
        .text(13, schema, "pattern")
        .integer(14, schema, "maxItems")
        .integer(15, schema, "minItems")
        .flag(16, schema, "uniqueItems")
        .integer(17, schema, "maxProperties")
        .integer(18, schema, "minProperties")
        .texts(19, &schema["required"]);
    message = items(&schema["enum"]).fold(message, |message, value| message.message(20, any(value)));
    parts(message, schema).extensions(31, schema)
}

/// What a schema says with other schemas, and its type between them.
fn parts(mut message: Message, given: &Value) -> Message {
    match &given["additionalProperties"] {
        Value::Bool(_) => {
            message = message.message(21, Message::default().flag(2, given, "additionalProperties"));
        }
        Value::Object(_) => {
            let values = schema(&given["additionalProperties"]);
            message = message.message(21, Message::default().message(1, values));
        }
        _ => {}
    }
    if given["type"].is_string() {
        message = message.message(22, Message::default().text(1, given, "type"));
    }
    if given["items"].is_object() {
        message = message.message(23, Message::default().message(1, schema(&given["items"])));
    }
    if given["properties"].is_object() {
        message = message.message(25, Message::default().named(1, &given["properties"], schema));
    }
    message
}

fn any(value: &Value) -> Message {
    Message::default().bytes(2, value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_messages() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "T", "version": "V"}, "paths": {},
            "definitions": {"a.B": {"type": "object", "x-kubernetes-group-version-kind": [{"kind": "B"}]}},
        });
        let expected = r#"\n\x032.0\x12\x06\n\x01T\x12\x01VB\x00JJ\nH\n\x03a.B\x12A\xb2\x01\x08\n\x06object\xfa\x013\n\x1fx-kubernetes-group-version-kind\x12\x10\x12\x0e[{\"kind\":\"B\"}]"#;
        assert_eq!(encode(&document).escape_ascii().to_string(), expected);
    }

    #[test]
    fn parameters_have_the_numbers_of_their_place() {
        let in_query = parameter(&json!({"name": "a", "in": "query", "type": "string", "uniqueItems": true}));
        assert_eq!(
            in_query.0.escape_ascii().to_string(),
            r#"\x12\x17\x1a\x15\x12\x05query\"\x01a2\x06string\xa0\x01\x01"#
        );
        let in_path = parameter(&json!({"name": "a", "in": "path", "type": "string", "required": true}));
        assert_eq!(
            in_path.0.escape_ascii().to_string(),
            r#"\x12\x15\"\x13\x08\x01\x12\x04path\"\x01a*\x06string"#
        );
    }
}
