//! Holds the house's shape: which room may know which, what each room must not contain, and that every
//! dependency has a reason.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The edges that the design allows; any other edge between our crates fails.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("etcd", &["store"]),
    ("streaming", &[]),
    ("client", &["api"]),
    ("apiserver", &["api", "store", "streaming"]),
    ("scheduler", &["api", "client"]),
    ("controllers", &["api", "client"]),
    ("network", &["api", "client"]),
    ("kubelet", &["api", "client", "network", "streaming"]),
    (
        "ctl",
        &["api", "store", "etcd", "apiserver", "client", "scheduler", "controllers", "network", "kubelet"],
    ),
    ("e2e", &[]),
    // For the containerd, the image and the machine that tests have, too.
    ("bench", &["etcd", "e2e"]),
];

/// What must be absent from a room's own manifest, and why.
const ABSENT: &[(&str, &[&str])] = &[
    // `api` is values only: it can be used and tested without a runtime, a socket or a disk.
    ("api", &["tokio", "hyper", "rocksdb", "kube", "tracing", "rand"]),
    // What is said over a connection is decided without one.
    ("streaming", &["tokio", "hyper", "kube", "tracing", "rand"]),
    // The store never parses an object.
    ("store", &["k8s-openapi", "kube", "hyper", "json-patch"]),
    // Only the store opens RocksDB or speaks Raft.
    ("apiserver", &["rocksdb", "raft", "kube"]),
    ("controllers", &["rocksdb", "raft", "hyper"]),
    ("scheduler", &["rocksdb", "raft", "hyper"]),
    ("kubelet", &["rocksdb", "raft"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(e2e::checkout().join("Cargo.toml"))
        .exec()
        .expect("cargo metadata of the workspace")
}

/// Direct dependencies of each of our crates, without those of its tests.
fn direct(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let names = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), names)
        })
        .collect()
}

#[test]
fn dependencies_run_one_way() {
    let direct = direct(&metadata());
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let ours: BTreeSet<_> = allowed.keys().copied().collect();
    assert_eq!(
        direct.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        ours,
        "a crate was added or removed: say in ALLOWED what it may know"
    );
    for (name, dependencies) in &direct {
        for dependency in dependencies.iter().filter(|d| ours.contains(d.as_str())) {
            assert!(
                allowed[name.as_str()].contains(&dependency.as_str()),
                "`{name}` must not know `{dependency}`"
            );
        }
    }
}

#[test]
fn what_must_be_absent_is_absent() {
    let direct = direct(&metadata());
    for (name, absent) in ABSENT {
        for dependency in *absent {
            assert!(!direct[*name].contains(*dependency), "`{name}` must not depend on `{dependency}`");
        }
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = include_str!("../../Cargo.toml");
    let table = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("a table of dependencies");
    let without: Vec<_> = table
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.contains("path ="))
        .filter(|line| !line.contains(" # "))
        .collect();
    assert!(without.is_empty(), "no reason beside: {without:#?}");
}

#[test]
fn every_licence_is_permissive() {
    let allowed: BTreeSet<_> = include_str!("../../deny.toml")
        .lines()
        .find(|line| line.starts_with("allow = ["))
        .expect("deny.toml lists the licences")
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    for package in metadata().packages {
        let expression = package.license.clone().unwrap_or_default().replace('/', " OR ");
        let permitted =
            |term: &str| term.split(" AND ").all(|t| allowed.contains(t.trim_matches(['(', ')', ' '])));
        assert!(
            expression.split(" OR ").any(permitted),
            "{} {}: licence `{expression}` isn't in deny.toml",
            package.name,
            package.version
        );
    }
}

/// Every test and file that ARCHITECTURE.md names beside an invariant or a step exists.
#[test]
fn the_architecture_page_names_what_is_there() {
    let root = e2e::checkout();
    let page = include_str!("../../ARCHITECTURE.md");
    let mut room = String::new();
    // Not what stands in the fenced map of the rooms.
    let prose: String = page.split("```").step_by(2).collect();
    for word in prose.split('`').skip(1).step_by(2).filter(|word| !word.contains(' ')) {
        if word.ends_with(".rs") || (word.ends_with('/') && word.len() > 1) {
            // A name without its room follows one with it: "`store/src/raft/member.rs`, `raft/persist.rs`".
            let (near, far) = (root.join(&room).join(word), root.join(word));
            assert!(near.exists() || far.exists(), "ARCHITECTURE.md names {word}, which is not there");
            if far.exists()
                && let Some((folder, _)) = word.split_once("/src/")
            {
                room = format!("{folder}/src");
            }
        } else if word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            let found = sources(&root).any(|text| text.contains(&format!("fn {word}(")));
            assert!(
                found || !page.contains(&format!(".rs` `{word}`")),
                "ARCHITECTURE.md names the test {word}"
            );
        }
    }
}

/// Who follows a pod through ARCHITECTURE.md finds, in each step's file, the function at which to begin.
#[test]
fn each_step_of_a_pods_way_begins_at_a_function() {
    let root = e2e::checkout();
    let page = include_str!("../../ARCHITECTURE.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let steps = rows.filter(|(number, _)| number.parse::<u32>().is_ok());
    let mut count = 0;
    for (number, row) in steps {
        let place = row.split(" | ").nth(1).unwrap_or_default();
        let (file, function) =
            place.split_once("` `").unwrap_or_else(|| panic!("step {number} begins at {place}"));
        let text = std::fs::read_to_string(root.join(file.trim_matches('`'))).expect("the step's file");
        let function = function.trim_matches('`');
        let begins = [format!("fn {function}("), format!("fn {function}<")];
        assert!(begins.iter().any(|begin| text.contains(begin)), "step {number}: no {function} in {file}");
        count += 1;
    }
    assert_eq!(count, 10, "a pod's way has ten steps");
}

/// Every file that the map of conformance names as the holder of an item exists.
#[test]
fn the_map_of_conformance_names_what_is_there() {
    let root = e2e::checkout();
    let page = include_str!("../../docs/conformance.md");
    let words = page.split('`').skip(1).step_by(2);
    let is_file = |word: &&str| word.contains('/') && (word.ends_with(".rs") || word.ends_with(".txt"));
    let named: Vec<&str> = words.filter(is_file).collect();
    assert!(named.len() > 50, "the map names {} files only", named.len());
    for file in named {
        assert!(root.join(file).exists(), "docs/conformance.md names {file}, which is not there");
    }
}

/// The text of each Rust file below the rooms.
fn sources(root: &std::path::Path) -> impl Iterator<Item = String> {
    let mut folders: Vec<_> = ALLOWED.iter().map(|(room, _)| root.join(room)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.into_iter().map(|path| std::fs::read_to_string(path).expect("a source file"))
}
