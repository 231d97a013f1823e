//! Golden files, and random objects.
//!
//! Golden files are scripts in `testdata/` whose expected output stands behind `----`.
//!
//! A case is a block that begins with `case NAME`; its other lines are `KEY VALUE`. `UPDATE=1` rewrites
//! what is expected, and the difference is reviewed like code.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::schema::{Object, Schema, Shape};

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

/// Runs all cases of a file and compares their outputs, or rewrites them with `UPDATE=1`.
pub(crate) fn golden(file: &str, run: impl Fn(&Case) -> String) {
    let (path, text, actual) = transcript(file, run);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    } else {
        compare(file, &text, &actual);
    }
}

/// Like [`golden`] for a file whose outputs come from elsewhere: they are never rewritten.
pub(crate) fn oracle(file: &str, run: impl Fn(&Case) -> String) {
    let (_, text, actual) = transcript(file, run);
    compare(file, &text, &actual);
}

fn transcript(file: &str, run: impl Fn(&Case) -> String) -> (PathBuf, String, String) {
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
    (path, text, format!("{}\n", actual.trim_end()))
}

/// Shows the first case that differs rather than two whole files.
fn compare(file: &str, expected: &str, actual: &str) {
    for (expected, actual) in expected.split("\n\n").zip(actual.split("\n\n")) {
        assert_eq!(actual.trim_end(), expected.trim_end(), "testdata/{file} differs");
    }
    assert_eq!(actual.len(), expected.len(), "testdata/{file} has other blank lines; UPDATE=1 rewrites it");
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

/// A small generator of random objects of a schema; equal seeds give equal objects.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: good enough to choose fields, and needs no dependency.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len() as u64) as usize]
    }

    /// An object of the schema, odd only inside.
    pub(crate) fn object_of(&mut self, schema: &Schema) -> Value {
        loop {
            match self.value(schema, 0) {
                object @ Value::Object(_) => return object,
                _ => continue,
            }
        }
    }

    /// A value of the schema; now and then something else entirely.
    pub(crate) fn value(&mut self, schema: &Schema, depth: u32) -> Value {
        if self.below(60) == 0 {
            return self.odd();
        }
        match &schema.shape {
            Shape::Object(object) => self.object(object, depth),
            Shape::Map(values) => {
                let keys = ["a", "example.com/b", "cpu", "-bad-"];
                let chosen: Vec<&str> = keys.into_iter().filter(|_| self.below(2) == 0).collect();
                chosen.into_iter().map(|key| (key.to_string(), self.value(values.get(), depth + 1))).collect()
            }
            Shape::List(list) => {
                let length = if depth > 8 { 0 } else { self.below(3) };
                (0..length).map(|_| self.value(list.items.get(), depth + 1)).collect()
            }
            scalar => self.scalar(scalar),
        }
    }

    fn object(&mut self, object: &Object, depth: u32) -> Value {
        let mut map = serde_json::Map::new();
        for (name, field) in &object.fields {
            let required = object.required.contains(name) && self.below(10) > 0;
            if required || self.below(4 + u64::from(depth) * 2) == 0 && depth < 9 {
                map.insert(name.clone(), self.value(field.schema.get(), depth + 1));
            }
        }
        Value::Object(map)
    }

    fn scalar(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Integer(_) | Shape::Number => (self.below(200) as i64 - 10).into(),
            Shape::Boolean => (self.below(2) == 0).into(),
            Shape::Time | Shape::MicroTime => {
                self.pick(&["2024-05-01T10:00:00Z", "2024-05-01T10:00:00.123+02:00"]).into()
            }
            Shape::Quantity => self.pick(&["1", "1500m", "0.5Gi", "-1", "1e3"]).into(),
            Shape::Bytes => self.pick(&["", "eA==", "eHk="]).into(),
            Shape::IntOrString => match self.below(2) {
                0 => self.pick(&["25%", "http", "x%"]).into(),
                _ => self.below(70_000).into(),
            },
            _ => self
                .pick(&["", "a", "b", "Always", "RollingUpdate", "TCP", "UPPER_case", "a/b", "10.0.0.1"])
                .into(),
        }
    }

    fn odd(&mut self) -> Value {
        match self.below(5) {
            0 => Value::Null,
            1 => "odd".into(),
            2 => 1.5.into(),
            3 => serde_json::json!({"unknown": [1]}),
            _ => serde_json::json!([{"odd": true}]),
        }
    }
}
