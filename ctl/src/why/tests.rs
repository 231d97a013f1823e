//! Each file of `testdata/why/` is an object and the cluster around it; `.then.yaml` is the cluster before the
//! scheduler decided.

use super::*;
use crate::text::golden;

#[test]
fn answers() {
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
    let dir = std::fs::read_dir(golden::path("testdata/why")).expect("the inputs are readable");
    let inputs = dir.map(|entry| entry.expect("an entry").path());
    let names = inputs.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".yaml")?.to_owned()));
    for name in names.filter(|name| !name.ends_with(".then")) {
        let (object, view) = read(&name).expect("the file was just listed");
        let decision = read(&format!("{name}.then")).map(|(pod, view)| Decision {
            revision: "812".to_owned(),
            time: "2026-01-01T00:08:00Z".to_owned(),
            by: "amoeba/scheduler".to_owned(),
            pod,
            view,
        });
        let answer = why(Question { object: &object, view: &view, decision: decision.as_ref(), now });
        let text = anstream::adapter::strip_str(&answer.text()).to_string();
        golden::check_file(&format!("testdata/why/{name}.txt"), &text);
    }
}

fn read(name: &str) -> Option<(Value, View)> {
    let text = std::fs::read_to_string(golden::path(&format!("testdata/why/{name}.yaml"))).ok()?;
    let mut view = View::default();
    let documents = crate::manifest::parse("input", &text).expect("a manifest");
    let objects: Vec<Value> = documents.into_iter().map(|document| document.object).collect();
    objects.iter().for_each(|object| view.add(object.clone()));
    Some((objects.into_iter().next()?, view))
}

#[test]
fn an_answer_is_data_too() {
    let mut answer = Answer::about(&serde_json::json!({"kind": "Pod", "metadata": {"name": "a"}}), "waits");
    answer.table("Nodes", &["NODE", "WHY"], vec![vec!["n1".to_owned(), "full".to_owned()]]);
    answer.lines("Queue", vec!["1 of 1".to_owned()]);
    answer.fix("uncordon node n1", None, "then it fits");
    let expected = serde_json::json!({
        "object": "pod a", "verdict": "waits",
        "because": {"Nodes": [{"node": "n1", "why": "full"}], "Queue": ["1 of 1"]},
        "fixes": [{"change": "uncordon node n1", "command": null, "then": "then it fits"}],
    });
    assert_eq!(answer.json(), expected);
}
