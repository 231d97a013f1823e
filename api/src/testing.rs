//! Golden files: scripts in `testdata/` whose expected output stands behind `----`.
//!
//! A case is a block that begins with `case NAME`; its other lines are `KEY VALUE`. `UPDATE=1` rewrites
//! what is expected, and the difference is reviewed like code.

use std::path::Path;

/// One case of a golden file.
pub(crate) struct Case {
    name: String,
    lines: Vec<(String, String)>,
}

impl Case {
    /// The value of a line; panics if the case has no such line.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("case {:?} has no line {key:?}", self.name))
    }

    /// The value of a line, if the case has it.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Runs all cases of a file and compares (or rewrites) their outputs.
pub(crate) fn golden(file: &str, run: impl Fn(&Case) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut actual = String::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let input = block.split("\n----").next().unwrap_or_default().trim_end();
        actual.push_str(input);
        if let Some(case) = parse(input) {
            actual.push_str(&format!("\n----\n{}", run(&case).trim_end()));
        }
        actual.push_str("\n\n");
    }
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    } else {
        assert_eq!(actual, text, "{} differs; UPDATE=1 rewrites it", path.display());
    }
}

fn parse(input: &str) -> Option<Case> {
    let mut lines = input.lines().filter(|line| !line.starts_with('#'));
    let name = lines.next()?.strip_prefix("case ")?.to_string();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        (key.to_string(), value.to_string())
    };
    Some(Case { name, lines: lines.map(pair).collect() })
}
