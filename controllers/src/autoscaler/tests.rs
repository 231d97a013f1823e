//! Conversations in `testdata/autoscaler/`: an autoscaler, what its pods use, and what it does about it.
//!
//! ```text
//! hpa min=1 max=10 {SPEC}          the autoscaler; JSON is merged into its spec
//! pods N used=AMOUNT [unready] …   N pods that use so much CPU and ask for 100m each; `used=?` isn't measured
//! unmeasured TEXT                  the metrics API answers with this error
//! pass SECONDS                     time passes
//! look REPLICAS                    prints the plan; what it scales to is the count of the next `look`
//! ```

use super::*;
use serde_json::Value;
use std::fmt::Write;

struct Story {
    hpa: Value,
    samples: Vec<usage::Sample>,
    refusal: Option<String>,
    memory: Memory,
    now: Timestamp,
}

fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number(line: &str, name: &str) -> Option<i32> {
    word(line, name)?.parse().ok()
}

impl Story {
    fn run(&mut self, line: &str, answer: &mut String) {
        let second = line.split_whitespace().nth(1).unwrap_or_default();
        match line.split_whitespace().next().expect("a command") {
            "hpa" => self.hpa(line),
            "pods" => {
                let used = word(line, "used").and_then(|used| used.strip_suffix('m')?.parse().ok());
                let sample = usage::Sample {
                    pod: "p".to_owned(),
                    used,
                    requested: Some(100),
                    is_ready: !line.contains("unready"),
                };
                let count = second.parse().expect("pods N");
                self.samples.extend(std::iter::repeat_n(sample, count));
            }
            "unmeasured" => self.refusal = Some(line["unmeasured ".len()..].to_owned()),
            "pass" => self.now += SignedDuration::from_secs(second.parse().expect("seconds")),
            "look" => self.look(second.parse().expect("look REPLICAS"), answer),
            other => panic!("what is {other}?"),
        }
    }

    fn hpa(&mut self, line: &str) {
        let spec = json!({
            "minReplicas": number(line, "min").unwrap_or(1), "maxReplicas": number(line, "max").unwrap_or(10),
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
        });
        self.hpa = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "1",
            "generation": 1}, "spec": spec});
        if let Some(start) = line.find('{') {
            let more: Value = serde_json::from_str(&line[start..]).expect("JSON");
            for (field, value) in more.as_object().expect("fields") {
                self.hpa["spec"][field] = value.clone();
            }
        }
    }

    fn look(&mut self, replicas: i32, answer: &mut String) {
        let kind = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
        let measured = match self.refusal.take() {
            Some(why) => Err(("FailedGetResourceMetric", why)),
            None => Ok(Measured::PerPod(std::mem::take(&mut self.samples))),
        };
        let scaled = Scaled { kind, uid: "u2".to_owned(), wanted: replicas, present: replicas };
        let view = View { scaled: Ok(scaled), measured: vec![measured] };
        let hpa = serde_json::from_value(self.hpa.clone()).expect("an autoscaler");
        let plan = reconcile(&hpa, &view, &mut self.memory, self.now);
        for action in plan.actions {
            let told = match &action {
                crate::plan::Action::Patch { part: Part::Status, patch, .. } => conditions(&patch["status"]),
                action => action.to_string(),
            };
            let _ = writeln!(answer, "{told}");
        }
    }
}

fn conditions(status: &Value) -> String {
    let told = status["conditions"].as_array().into_iter().flatten().map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        format!("{}={} {}", text("type"), text("status"), text("reason"))
    });
    let told: Vec<String> = told.collect();
    let percent = &status["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
    format!("desired {} of {percent}%: {}", status["desiredReplicas"], told.join(", "))
}

#[test]
fn conversations() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/autoscaler/cpu.txt");
    let expected = std::fs::read_to_string(&path).expect("readable");
    let blocks = expected.trim_end().split("\n\n").map(|block| {
        let commands = block.split("\n----").next().expect("split yields at least one part");
        let mut story = Story {
            hpa: Value::Null,
            samples: Vec::new(),
            refusal: None,
            memory: Memory::default(),
            now: Timestamp::UNIX_EPOCH,
        };
        let mut answer = String::new();
        commands.lines().filter(|line| !line.starts_with('#')).for_each(|line| story.run(line, &mut answer));
        format!("{commands}\n----\n{answer}")
    });
    let actual = blocks.collect::<Vec<_>>().join("\n");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &actual).expect("writable");
    } else {
        assert_eq!(expected, actual, "UPDATE=1 rewrites the answers");
    }
}

#[test]
fn a_pod_that_just_started_says_nothing_about_load() {
    let pod = |status: &str, changed: &str| {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources":
            {"requests": {"cpu": "100m"}}}]}, "status": {"phase": "Running", "startTime": "1970-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": changed}]}})
    };
    let metrics = json!({"timestamp": "1970-01-01T00:00:40Z", "window": "30s",
        "containers": [{"name": "c", "usage": {"cpu": "20m"}}]});
    let ready = |pod: &Value, seconds| {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        sample::of(pod, Some(&metrics), "cpu", None, now).expect("it counts").is_ready
    };
    assert!(ready(&pod("True", "1970-01-01T00:00:05Z"), 50), "measured after it became ready");
    assert!(!ready(&pod("True", "1970-01-01T00:00:20Z"), 50), "measured while it was not");
    assert!(!ready(&pod("False", "1970-01-01T00:00:05Z"), 50));
    assert!(!ready(&pod("False", "1970-01-01T00:00:05Z"), 400), "it never was ready");
    assert!(ready(&pod("False", "1970-01-01T00:02:00Z"), 400), "it was, and may be overloaded");
}
