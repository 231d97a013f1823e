//! Selectors as text and as objects, and what they select.

use super::*;
use proptest::prelude::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[test]
fn which_labels_match() {
    let table = [
        ("", "a=1", true),
        ("a=1", "a=1,b=2", true),
        ("a==1,b!=2", "a=1,b=2", false),
        ("b!=2", "a=1", true),
        ("a in (1,2)", "a=2", true),
        ("a notin (1, 2)", "a=3", true),
        ("a notin (1)", "", true),
        ("a", "a=", true),
        ("!a", "a=", false),
        ("a=", "a=", true),
        ("a=", "", false),
        ("a>5", "a=6", true),
        ("a>5", "a=x", false),
        ("a<5,a", "a=4", true),
        ("in in (in)", "in=in", true),
        ("x.io/a-b in (c)", "x.io/a-b=c", true),
    ];
    for (selector, set, expected) in table {
        let parsed = LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        assert_eq!(parsed.matches(&labels(set)), expected, "{selector} on {set}");
    }
}

#[test]
fn what_is_no_selector_is_explained() {
    let table = [
        ("a=1,", "unable to parse requirement: found '', expected: identifier after ','"),
        ("a in 1", "unable to parse requirement: found '1', expected: '('"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=1 b", "unable to parse requirement: found 'b', expected: ',' or 'end of string'"),
        ("(", "unable to parse requirement: found '(', expected: !, identifier, or 'end of string'"),
    ];
    for (text, error) in table {
        assert_eq!(LabelSelector::parse(text).expect_err(text).to_string(), error);
    }
    assert!(LabelSelector::parse("a/b/c=1").is_err() && LabelSelector::parse("a=-").is_err());
}

#[test]
fn objects_are_read_as_texts_are() {
    let selector = serde_json::json!({
        "matchLabels": {"a": "1"},
        "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["y", "x"]}, {"key": "c", "operator": "Exists"}],
    });
    let selector = LabelSelector::from_value(&selector).expect("a selector");
    assert_eq!(selector.to_string(), "a=1,b notin (x,y),c");
}

proptest! {
    #[test]
    fn the_text_of_a_selector_parses_back(
        parts in prop::collection::vec(("[a-z]{1,3}", 0..4usize, prop::collection::btree_set("[a-z]{0,2}", 1..3)), 0..4)
    ) {
        let operators = [Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist];
        let requirements = parts.into_iter().map(|(key, operator, values)| {
            let values = if operator < 2 { values } else { BTreeSet::new() };
            Requirement::new(&key, operators[operator], values).expect("valid parts")
        });
        let selector = LabelSelector::new(requirements.collect());
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn parsing_never_panics(text in "[a-c=!,() <>]{0,12}") {
        let _ = LabelSelector::parse(&text);
    }
}
