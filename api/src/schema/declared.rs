//! Kinds as types of expressions.

use std::sync::Arc;

use super::{Object, Schema, Shape};
use crate::cel::{FieldType, ObjectType, Type, escape};

/// The type of a kind's values in expressions. What contains itself is anything from the second time on.
pub fn declared(schema: &Schema) -> Type {
    Walk { inside: Vec::new() }.kind(schema)
}

struct Walk<'a> {
    /// The types that this one is part of.
    inside: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn kind(&mut self, schema: &'a Schema) -> Type {
        match &schema.shape {
            Shape::Object(object) => self.object(schema, object),
            Shape::Map(values) => Type::map(Type::STRING, self.kind(values.get())),
            Shape::List(list) => Type::list(self.kind(list.items.get())),
            Shape::String | Shape::Quantity => Type::STRING,
            Shape::Bytes => Type::BYTES,
            Shape::Integer(_) => Type::Int,
            Shape::Number => Type::Double,
            Shape::Boolean => Type::Bool,
            Shape::Time | Shape::MicroTime => Type::Timestamp,
            Shape::IntOrString | Shape::Any => Type::Dyn,
        }
    }

    fn object(&mut self, schema: &'a Schema, object: &'a Object) -> Type {
        let name = schema.go_type.as_str();
        if object.preserve_unknown || (!name.is_empty() && self.inside.contains(&name)) {
            return Type::Dyn;
        }
        self.inside.push(name);
        let mut made = ObjectType { name: name.to_owned(), fields: Default::default() };
        for (json, field) in &object.fields {
            let kind = self.kind(field.schema.get());
            let field = FieldType { json: json.clone(), kind };
            // Words of the language can be written as they are, too: `object.metadata.namespace`.
            made.fields
                .extend(escape(json).filter(|escaped| escaped != json).map(|name| (name, field.clone())));
            made.fields.insert(json.clone(), field);
        }
        self.inside.pop();
        Type::Object(Arc::new(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Definitions;

    #[test]
    fn every_built_in_kind_is_a_type() {
        let of = |group: &str, version: &str, kind: &str| {
            declared(Definitions::builtin().of_kind(group, version, kind).expect("a kind"))
        };
        let Type::Object(pod) = of("", "v1", "Pod") else { panic!("an object") };
        let Type::Object(metadata) = &pod.fields["metadata"].kind else { panic!("an object") };
        assert!(matches!(metadata.fields["creationTimestamp"].kind, Type::Timestamp));
        assert!(matches!(metadata.fields["namespace"].kind, Type::String(_)));
        // Schemas of schemas contain themselves.
        of("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    }
}
