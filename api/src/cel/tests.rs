//! Expressions and what comes of them, in `testdata/cel/`.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::testing::golden;

/// The object that cases look at, and its type.
fn object() -> (Json, Type) {
    let json = json!({
        "name": "web", "replicas": 3, "ratio": 1, "tags": ["a", "b", "c"], "labels": {"app": "x", "a-b": "y"},
        "started": "2024-05-01T10:20:30Z", "timeout": "1h30m", "ports": [{"name": "http", "port": 80}],
        "my-field": true, "any": {"deep": [1, {"x": "y"}]},
    });
    let port = Type::object("Port", [("name".to_owned(), Type::STRING), ("port".to_owned(), Type::Int)]);
    let fields = [
        ("name", Type::String(20)),
        ("replicas", Type::Int),
        ("ratio", Type::Double),
        ("tags", Type::List(std::sync::Arc::new(Type::String(10)), 5)),
        ("labels", Type::map(Type::STRING, Type::STRING)),
        ("started", Type::Timestamp),
        ("timeout", Type::Duration),
        ("ports", Type::list(port)),
        ("my-field", Type::Bool),
        ("missing", Type::STRING),
        ("any", Type::Dyn),
    ];
    (json, Type::object("object", fields.map(|(name, kind)| (name.to_owned(), kind))))
}

fn run(expression: &str) -> String {
    let (json, kind) = object();
    let environment = Environment::new([("self", kind.clone())]);
    let program = match compile(expression, &environment) {
        Ok(program) => program,
        Err(error) => return error.show(expression),
    };
    let bindings = Bindings::new([("self", Value::of(&json, &kind))]);
    let mut budget = Budget::new(PER_CALL_LIMIT);
    match program.evaluate(&bindings, &mut budget) {
        Ok(value) => format!("{} ({})", value.to_text(), value.type_name()),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn cases() {
    golden("cel/cases.txt", |case| run(case.get("expr")));
}

#[test]
fn an_estimate_is_never_below_the_actual_cost() {
    let (json, kind) = object();
    let environment = Environment::new([("self", kind.clone())]);
    for expression in [
        "self.tags.all(t, t.startsWith('a') || t.size() < 5)",
        "self.tags.map(t, t + 'x').exists(t, t == self.name)",
        "self.replicas * 2 > 5 && self.name.matches('^[a-z]+$')",
        "self.tags.exists_one(t, self.tags.all(u, u == t))",
    ] {
        let program = compile(expression, &environment).expect("an expression");
        let mut budget = Budget::new(PER_CALL_LIMIT);
        program.evaluate(&Bindings::new([("self", Value::of(&json, &kind))]), &mut budget).expect("a value");
        let actual = PER_CALL_LIMIT - budget.left();
        assert!(actual <= program.estimated_cost(), "{expression}: {actual} > {}", program.estimated_cost());
    }
}

#[test]
fn what_is_too_expensive_ends_early() {
    let list = json!((0..1000).collect::<Vec<_>>());
    let kind = Type::list(Type::Int);
    let environment = Environment::new([("self", kind.clone())]);
    let program =
        compile("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))", &environment).expect("fine");
    assert_eq!(program.estimated_cost(), UNBOUNDED);
    let mut budget = Budget::new(PER_CALL_LIMIT);
    let error = program.evaluate(&Bindings::new([("self", Value::of(&list, &kind))]), &mut budget);
    assert!(error.expect_err("too expensive").is_fatal());
    assert_eq!(budget.left(), 0);
}

proptest! {
    /// Whatever is written, compiling it ends in an answer.
    #[test]
    fn no_text_stops_the_compiler(text in ".{0,60}") {
        let _ = compile(&text, &Environment::new([("self", Type::Dyn)]));
    }

    /// Nor does anything that looks like an expression.
    #[test]
    fn no_expression_stops_the_evaluator(
        parts in prop::collection::vec(prop::sample::select(vec![
            "self", ".", "a", "[", "]", "(", ")", "{", "}", "1", "'x'", "+", "-", "==", "&&", "||", "?", ":", ",",
            "size", "all", "map", "x", "!", "in", "1.5", "has", "[?", ".?", "null", "optional", "of",
        ]), 0..14),
    ) {
        let json = json!({"a": [1, "x"]});
        let kind = Type::Dyn;
        if let Ok(program) = compile(&parts.join(" "), &Environment::new([("self", Type::Dyn)])) {
            let mut budget = Budget::new(10_000);
            let _ = program.evaluate(&Bindings::new([("self", Value::of(&json, &kind))]), &mut budget);
        }
    }
}
