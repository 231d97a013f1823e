//! Written definitions, and what is wrong with each.

use crate::testing::golden;

use super::*;

#[test]
fn cases() {
    golden("crd/definitions.txt", |case| {
        let text = case.get("crd").replace("\\n", "\n");
        let mut crd = crate::schema::parse(text.as_bytes(), crate::schema::Format::Yaml).expect("YAML").value;
        crate::defaults::apply("apiextensions.k8s.io", "CustomResourceDefinition", &mut crd);
        let errors: Vec<String> = validate_definition(&crd).iter().map(FieldError::to_string).collect();
        if errors.is_empty() { "fine".into() } else { errors.join("\n") }
    });
}
