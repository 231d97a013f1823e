//! Scripts: each file of `testdata/` is a conversation with a [`World`]; UPDATE=1 rewrites the answers.
//!
//! ```text
//! deployment web replicas=3     makes an object (or any other noun of `objects.rs`); JSON at the end is merged in
//! set PLURAL KEY {"spec": …}    merges into an object
//! delete PLURAL KEY [POLICY]    deletes it
//! pass SECONDS | sync | crash   time passes; caches catch up; the controllers' process is replaced
//! refuse TEXT | refuse          pods can't be created; they can again
//! look CONTROLLER KEY           prints the plan
//! step CONTROLLER KEY           prints and performs the plan; caches stay as they are
//! settle | quietly              all controllers act until none wants to, with or without telling
//! schedule | kubelets [DEAD…]   the other parts of a cluster act
//! end POD PHASE CODE | work     a pod's container ends; all running pods of Jobs succeed
//! show PLURAL…                  prints objects
//! ```

use super::{World, object_key, objects::words};
use kube::api::PropagationPolicy;
use std::{fmt::Write, fs, path::Path};

fn run(world: &mut World, line: &str, answer: &mut String) {
    let parts: Vec<&str> = line.split_whitespace().collect();
    match parts.as_slice() {
        ["set", plural, key, ..] => {
            let patch = line.splitn(4, ' ').nth(3).expect("set PLURAL KEY JSON");
            world.edit(plural, &object_key(key), &serde_json::from_str(patch).expect("JSON"));
        }
        ["delete", plural, key, policy @ ..] => {
            let slot = ((*plural).to_owned(), object_key(key));
            world.server.delete(&slot, policy.first().map(|policy| propagation(policy)).as_ref(), None);
        }
        ["pass", seconds] => world.pass(seconds.parse().expect("seconds")),
        ["sync"] => world.sync(),
        ["crash"] => world.crash(),
        ["refuse"] => world.server.refusal = None,
        ["refuse", ..] => world.server.refusal = Some(line["refuse ".len()..].to_owned()),
        ["look", controller, key] => {
            let _ = write!(answer, "{}", world.look(controller, key));
        }
        ["step", controller, key] => {
            let plan = world.look(controller, key);
            let _ = write!(answer, "{plan}");
            let report = world.perform(controller, key, &plan, &mut usize::MAX.clone());
            if report.end != crate::driver::End::Complete {
                let _ = writeln!(answer, "=> {:?}", report.end);
            }
        }
        ["settle"] => {
            let done = world.settle(&mut usize::MAX.clone());
            let told =
                done.iter().filter(|line| !line.contains(": status") && !line.contains("what remains of it"));
            told.for_each(|line| {
                let _ = writeln!(answer, "{line}");
            });
        }
        ["quietly"] => drop(world.settle(&mut usize::MAX.clone())),
        ["schedule"] => world.schedule(),
        ["kubelets", dead @ ..] => world.kubelets(dead),
        ["show", plurals @ ..] => plurals.iter().flat_map(|plural| world.show(plural)).for_each(|line| {
            let _ = writeln!(answer, "{line}");
        }),
        ["end", key, phase, code] => world.end(&object_key(key), phase, code.parse().expect("an exit code")),
        ["work"] => world.finish_jobs(|_| true),
        [noun, name, rest @ ..] => {
            let fields = line.find(" {").map_or("{}", |start| &line[start..]);
            let fields = serde_json::from_str(fields).expect("JSON");
            let rest: Vec<&str> = rest.iter().take_while(|word| !word.starts_with('{')).copied().collect();
            world.make_with(noun, name, &words(&rest), &fields);
        }
        other => panic!("what is {other:?}?"),
    }
}

fn propagation(policy: &str) -> PropagationPolicy {
    match policy {
        "Foreground" => PropagationPolicy::Foreground,
        "Orphan" => PropagationPolicy::Orphan,
        _ => PropagationPolicy::Background,
    }
}

/// The script with its answers as they are now. A block is commands, `----`, the answer, an empty line.
fn replay(script: &str) -> String {
    let mut world = World::new();
    let (mut out, mut answer, mut in_answer) = (String::new(), String::new(), false);
    for line in script.lines().chain([""]) {
        match line {
            "----" => {
                let _ = write!(out, "----\n{answer}");
                answer.clear();
                in_answer = true;
            }
            "" => {
                out.push('\n');
                in_answer = false;
            }
            _ if in_answer => {}
            command => {
                let _ = writeln!(out, "{command}");
                if !command.starts_with('#') {
                    run(&mut world, command, &mut answer);
                }
            }
        }
    }
    format!("{}\n", out.trim_end())
}

#[test]
fn scripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut failed = Vec::new();
    let files = fs::read_dir(&directory).expect("testdata").map(|file| file.expect("a file").path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "txt")) {
        let expected = fs::read_to_string(&path).expect("readable");
        let actual = replay(&expected);
        if actual != expected && std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &actual).expect("writable");
        } else if actual != expected {
            failed.push(format!("{}:\n{}", path.display(), first_difference(&expected, &actual)));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE=1 rewrites the answers", failed.join("\n"));
}

fn first_difference(expected: &str, actual: &str) -> String {
    let lines = expected.lines().zip(actual.lines()).enumerate();
    let different = lines.filter(|(_, (expected, actual))| expected != actual).take(3);
    different.map(|(n, (expected, actual))| format!("line {}:\n- {expected}\n+ {actual}\n", n + 1)).collect()
}
