//! Bodies built by hand, and a table that fits the definitions.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).expect("short")];
    bytes.extend_from_slice(content);
    bytes
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
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

/// The table and the definitions come from different places: every field must be known to both, but for
/// structs that are embedded and types whose JSON is special.
#[test]
fn the_table_fits_the_definitions_of_what_is_served() {
    let registry = crate::registry::Registry::builtin();
    // Metrics are only read. Of groups of pods we don't know the numbers: they are taken as JSON and YAML only.
    let without = |resource: &crate::registry::resource::Resource| {
        resource.group == "metrics.k8s.io"
            || resource.group == "scheduling.k8s.io" && resource.version != "v1"
    };
    let written = registry.resources().into_iter().filter(|resource| !without(resource));
    for resource in written {
        let schema = Definitions::builtin().schema(&resource.definition).expect("a definition");
        let line = include_str!("../../data/protobuf_fields.txt")
            .lines()
            .find(|line| line.split(' ').next() == Some(resource.definition.as_str()));
        let line = line.unwrap_or_else(|| panic!("{} has a protobuf form", resource.definition));
        for field in line.split(' ').skip(1).filter(|field| !field.ends_with(":inline")) {
            let name = field.split(':').nth(1).expect("a name");
            assert!(schema.field(name).is_some(), "{}.{name}", resource.definition);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&body("v1", "Pod", &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }
}
