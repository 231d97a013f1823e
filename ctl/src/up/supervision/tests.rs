//! Conversations with the supervision: `testdata/supervision.txt`, rewritten by `UPDATE=1`.

use super::*;
use crate::text::golden;

/// Each line is `SECONDS EVENT`; the output is what the supervision wants after each.
#[test]
fn transcripts() {
    golden::check("testdata/supervision.txt", |input| {
        let origin = Instant::now();
        let ids = ["m1", "m2", "n1", "n2"].map(|id| id.parse::<ChildId>().expect("a child"));
        let mut supervision = Supervision::new(ids);
        let mut output = String::new();
        for line in input.lines() {
            let (seconds, event) = line.split_once(' ').expect("time and event");
            let seconds: f64 = seconds.parse().expect("seconds");
            let effects = supervision.step(parse(event), origin + Duration::from_secs_f64(seconds));
            let effects: Vec<String> = effects.iter().map(|effect| format!("{effect:?}")).collect();
            let tick = supervision.next_tick().map(|at| (at - origin).as_secs_f64());
            output.push_str(&format!("{line}: {}", effects.join(", ")));
            output.push_str(&tick.map_or(String::new(), |at| format!("  [tick at {at:.1}]")));
            output.push('\n');
        }
        let states: Vec<String> =
            supervision.states().map(|(id, state, n)| format!("{id} {} {n}", state.word())).collect();
        output + &states.join(", ") + "\n"
    });
}

fn parse(text: &str) -> Event {
    let (verb, id) = text.split_once(' ').unwrap_or((text, "m1"));
    let id = id.parse().expect("a child");
    match verb {
        "begin" => Event::Begin,
        "ready" => Event::Ready(id),
        "exited" => Event::Exited(id, "ended".into()),
        "tick" => Event::Tick,
        "kill" => Event::Kill(id),
        "freeze" => Event::Freeze(id),
        "resume" => Event::Resume(id),
        "stop" => Event::Stop,
        other => panic!("unknown event {other}"),
    }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let millis: Vec<u128> = [1, 2, 3, 7, 8, 100].map(|n| pause(n).as_millis()).to_vec();
    assert_eq!(millis, [100, 200, 400, 6400, 10_000, 10_000]);
}
