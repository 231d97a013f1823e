//! Bodies built by hand, and a table that fits the definitions.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: usize, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

fn number(number: usize, value: u8) -> Vec<u8> {
    [varint(number << 3), vec![value]].concat()
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_config_map_comes_out_as_json() {
    let entry = [field(1, b"color"), field(2, b"red")].concat();
    // Go writes the empty generateName and creation time too.
    let metadata = [field(1, b"a"), field(2, b""), field(8, b""), field(11, &entry)].concat();
    let binary = [field(1, b"k"), field(2, &[0, 255])].concat();
    let raw = [field(1, &metadata), field(2, &entry), field(3, &binary), number(4, 0)].concat();
    assert_eq!(
        decode(&body("v1", "ConfigMap", &raw)),
        Ok(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "a", "labels": { "color": "red" } },
            "data": { "color": "red" },
            "binaryData": { "k": "AP8=" },
            "immutable": false,
        }))
    );
}

#[test]
fn special_types_have_their_json_form() {
    let port =
        [field(1, b"http"), number(3, 80), field(4, &[number(1, 0), number(2, 0), field(3, b"")].concat())]
            .concat();
    let named = [number(3, 81), field(4, &[number(1, 1), number(2, 0), field(3, b"web")].concat())].concat();
    let spec = [field(1, &port), field(1, &named)].concat();
    let created = field(8, &[number(1, 60), number(2, 0)].concat());
    let raw = [field(1, &created), field(2, &spec)].concat();
    let service = decode(&body("v1", "Service", &raw)).expect("valid");
    assert_eq!(service["metadata"]["creationTimestamp"], "1970-01-01T00:01:00Z");
    assert_eq!(
        service["spec"]["ports"],
        json!([{ "name": "http", "port": 80 }, { "port": 81, "targetPort": "web" }])
    );
}

#[test]
fn embedded_structs_belong_to_the_message_around_them() {
    let source = field(2, b""); // emptyDir, empty and yet given
    let volume = [field(1, b"tmp"), field(2, &source)].concat();
    let raw = field(2, &field(1, &volume));
    let pod = decode(&body("v1", "Pod", &raw)).expect("valid");
    assert_eq!(pod["spec"]["volumes"], json!([{ "name": "tmp", "emptyDir": {} }]));
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
    let unknown = decode(&body("example.com/v1", "Parrot", b""));
    assert!(matches!(unknown, Err(ProtobufError::UnknownKind { .. })), "{unknown:?}");
    assert_eq!(decode(&body("v1", "Pod", &[0x0a, 9, 1])), Err(ProtobufError::Broken));
    assert_eq!(
        decode(&body("v1", "Pod", &number(1, 7))),
        Err(ProtobufError::Broken),
        "metadata is no number"
    );
}

#[test]
fn delete_options_are_one_message_for_all_groups() {
    let raw = [number(1, 0), field(4, b"Background")].concat();
    for api_version in ["v1", "apps/v1"] {
        let options = decode(&body(api_version, "DeleteOptions", &raw)).expect("valid");
        assert_eq!(options["gracePeriodSeconds"], 0);
        assert_eq!(options["propagationPolicy"], "Background");
    }
}

#[test]
fn a_definition_has_the_names_of_its_json() {
    let string = field(5, b"string");
    let items = [field(5, b"array"), field(24, &field(1, &string))].concat();
    let free = [field(5, b"object"), number(38, 1), number(39, 0), field(30, &number(1, 0))].concat();
    let any = [field(30, &[number(1, 1), field(2, &string)].concat()), field(2, b"")].concat();
    let property = |name: &[u8], schema: &[u8]| field(29, &[field(1, name), field(2, schema)].concat());
    let schema = [property(b"list", &items), property(b"free", &free), property(b"any", &any)].concat();
    let subresources = field(5, &field(1, b""));
    let version =
        [field(1, b"v1"), number(2, 1), number(3, 1), field(4, &field(1, &schema)), subresources].concat();
    let raw = field(2, &[field(1, b"example.com"), field(7, &version)].concat());
    let crd = decode(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw)).expect("valid");
    assert_eq!(
        crd["spec"]["versions"],
        json!([{
            "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": { "properties": {
                "list": { "type": "array", "items": { "type": "string" } },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "additionalProperties": false },
                "any": { "additionalProperties": { "type": "string" } },
            } } },
        }])
    );
}

#[test]
fn what_is_new_in_pods_is_read() {
    let volume = [field(1, b"d"), field(2, &field(16, b""))].concat();
    let raw = field(2, &[field(1, &volume), field(43, &field(1, b"gang"))].concat());
    let pod = decode(&body("v1", "Pod", &raw)).expect("valid");
    assert_eq!(
        pod["spec"],
        json!({ "volumes": [{ "name": "d", "downwardAPI": {} }], "schedulingGroup": { "podGroupName": "gang" } })
    );
}

#[test]
fn a_group_of_pods_is_read() {
    let policy = field(2, &number(1, 3));
    let raw = field(2, &field(3, &policy));
    let group = decode(&body("scheduling.k8s.io/v1beta1", "PodGroup", &raw)).expect("valid");
    assert_eq!(group["spec"]["schedulingPolicy"], json!({ "gang": { "minCount": 3 } }));
}

/// Fields that came to 1.37 after the sources of the table: skipped in protobuf, read in JSON.
const UNNUMBERED: [&str; 4] = [
    "io.k8s.api.core.v1.NodeSystemInfo runningInUserNamespace",
    "io.k8s.api.resource.v1.DeviceCounterConsumption compatibilityGroups",
    "io.k8s.api.resource.v1.DeviceSubRequest derivedAttributes",
    "io.k8s.api.resource.v1.ExactDeviceRequest derivedAttributes",
];

/// The table and the definitions come from different places: each message has the fields of its definition, no
/// more and, but for the unnumbered, no fewer.
#[test]
fn the_table_fits_the_definitions() {
    let (table, mut missing) = (table(), Vec::new());
    for line in include_str!("../../../api/data/schemas.txt").lines() {
        let (name, schema) = line.split_once(' ').expect("a name and a schema");
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        let (true, Some(known)) = (table.contains_key(name), schema["properties"].as_object()) else {
            continue;
        };
        let known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
        let numbered: BTreeSet<&str> = names(&table, name).collect();
        let without = known.difference(&numbered).filter(|field| !["apiVersion", "kind"].contains(*field));
        missing.extend(without.map(|field| format!("{name} {field}")));
        assert_eq!(numbered.difference(&known).next(), None, "{name} has no such field");
    }
    assert_eq!(missing, UNNUMBERED);
}

type Table = HashMap<&'static str, Vec<Vec<&'static str>>>;

fn table() -> Table {
    let lines = include_str!("../../data/protobuf_fields.txt").lines();
    lines
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(name, fields)| (name, fields.split(' ').map(|field| field.split(':').collect()).collect()))
        .collect()
}

/// What a message's fields are called in JSON, with those of messages that are embedded in it.
fn names<'a>(table: &'a Table, message: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    Box::new(table[message].iter().flat_map(|field| match field[..] {
        [_, _, "m", embedded, "inline"] => names(table, embedded),
        [_, name, ..] => Box::new(std::iter::once(name)),
        _ => Box::new(std::iter::empty()),
    }))
}

#[test]
fn what_is_written_has_a_protobuf_form() {
    let registry = crate::registry::Registry::builtin();
    // Metrics are only read, and what is ours is JSON.
    let json_only = ["metrics.k8s.io", crate::transaction::GROUP];
    let resources = registry.resources().into_iter();
    let written = resources.filter(|resource| !json_only.contains(&resource.group.as_str()));
    let table = table();
    for resource in written {
        let definition = resource.definition.as_str();
        assert!(table.contains_key(definition), "{definition} has a protobuf form");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&body("v1", "Pod", &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }
}
