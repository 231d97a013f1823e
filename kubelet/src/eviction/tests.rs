//! Conversations with the eviction's core: `testdata/eviction/*.txt`, rewritten by `UPDATE=1`.
//!
//! `pod NAME priority=P request=BYTES` lines make the node's pods; `observe` says what is left of what
//! (`SIGNAL=AVAILABLE/CAPACITY`) and what pods use (`NAME=memory[/disk[/processes]]`); `after` lets seconds pass.

use super::*;
use std::path::Path;

struct Talk {
    eviction: Eviction,
    pods: Vec<Pod>,
    now: Timestamp,
}

fn amount(text: &str) -> u64 {
    let quantity = api::quantity::Quantity::parse(text).expect("a quantity");
    u64::try_from(quantity.value()).expect("not negative")
}

fn time(text: &str) -> Result<Duration, String> {
    text.trim_end_matches('s').parse().map(Duration::from_secs).map_err(|_| format!("{text}?"))
}

impl Talk {
    fn configure(hard: &str, soft: &str, graces: &str, reclaim: &str) -> Self {
        let mut thresholds = threshold::hard(hard).expect("hard");
        thresholds.extend(threshold::soft(soft, graces, time).expect("soft"));
        threshold::reclaim(&mut thresholds, reclaim).expect("reclaim");
        let config = EvictionConfig {
            thresholds,
            max_pod_grace: Duration::from_secs(20),
            transition: Duration::from_secs(300),
        };
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        Self { eviction: Eviction::new(config), pods: Vec::new(), now }
    }

    fn answer(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["config", rest @ ..] => {
                let of = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key)).unwrap_or_default();
                *self = Self::configure(of("hard:"), of("soft:"), of("grace:"), of("reclaim:"));
                String::new()
            }
            ["pod", name, rest @ ..] => {
                self.pods.push(pod(name, rest));
                String::new()
            }
            ["gone", name] => {
                self.pods.retain(|pod| pod.metadata.name.as_deref() != Some(name));
                String::new()
            }
            ["after", seconds] => {
                self.now = later(self.now, time(seconds).expect("seconds"));
                String::new()
            }
            ["observe", rest @ ..] => self.observe(rest),
            ["admit", name, rest @ ..] => match self.eviction.admit(&pod(name, rest)) {
                Ok(()) => "admitted\n".to_owned(),
                Err(verdict) => format!("{}: {}\n", verdict.reason, verdict.message),
            },
            _ => panic!("unknown line {line}"),
        }
    }

    fn observe(&mut self, rest: &[&str]) -> String {
        let mut seen = Observation::default();
        for (name, value) in rest.iter().filter_map(|word| word.split_once('=')) {
            let numbers: Vec<u64> = value.split('/').map(amount).collect();
            match threshold::hard(&format!("{name}<1")).ok().and_then(|all| all.first().map(|t| t.signal)) {
                Some(signal) => {
                    seen.supplies.insert(signal, Supply { available: numbers[0], capacity: numbers[1] });
                }
                None => {
                    let nth = |n: usize| numbers.get(n).copied().unwrap_or(0);
                    let usage = PodUsage {
                        memory: [(ContainerName("main".to_owned()), nth(0))].into(),
                        disk: nth(1),
                        inodes: 0,
                        processes: nth(2),
                    };
                    seen.pods.insert(PodUid(format!("uid-{name}")), usage);
                }
            }
        }
        let pods: Vec<&Pod> = self.pods.iter().collect();
        let outcome = self.eviction.observe(&seen, &pods, self.now);
        let names = self.eviction.pressure().names().join(" ");
        let mut text = format!("conditions [{names}]\n");
        if let Some(resource) = outcome.short_of {
            text += &format!("short of {resource:?}\n");
        }
        if let Some(Victim { pod, message, grace }) = outcome.victim {
            text += &format!("evict {pod} grace={}s: {message}\n", grace.as_secs());
        }
        text
    }
}

fn pod(name: &str, rest: &[&str]) -> Pod {
    let of = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key));
    let requests =
        |value: &str| format!(", resources: {{requests: {{memory: {value}, ephemeral-storage: {value}}}}}");
    let text = format!(
        "{{metadata: {{name: {name}, namespace: default, uid: uid-{name}}}, spec: {{priority: {}, tolerations: [{}], containers: [{{name: main{}}}]}}}}",
        of("priority=").unwrap_or("0"),
        if rest.contains(&"tolerant") {
            "{key: node.kubernetes.io/memory-pressure, operator: Exists, effect: NoSchedule}"
        } else {
            ""
        },
        of("request=").map(requests).unwrap_or_default(),
    );
    serde_yaml::from_str(&text).expect("a pod")
}

fn replay(script: &str) -> String {
    let mut talk = Talk::configure("", "", "", "");
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with("= ")) {
        out += &format!("{line}\n");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        talk.answer(line).lines().for_each(|answer| out += &format!("= {}\n", answer));
    }
    out
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/eviction");
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).expect("testdata") {
        let path = entry.expect("an entry").path();
        let script = std::fs::read_to_string(&path).expect("a script");
        let today = replay(&script);
        count += 1;
        if today != script && std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, today).expect("write");
        } else {
            assert_eq!(today, script, "{} (UPDATE=1 rewrites it)", path.display());
        }
    }
    assert!(count > 0, "no scripts in {}", dir.display());
}
