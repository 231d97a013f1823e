//! Manifests: files, directories and standard input as a flat list of objects that know where they stand.
//!
//! Nothing here talks to a cluster. Reading stops at the first file that can't be read or parsed, so that a
//! verb either sees all documents or none.

pub mod locate;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::schema::Duplicate;
use serde_json::Value;

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Document {
    /// File name, or `standard input`.
    pub source: Arc<str>,
    /// Line of the file where the document begins, from 1.
    pub line: usize,
    /// The text of the whole file, to find the line of a field.
    text: Arc<str>,
    /// The object.
    pub object: Value,
}

impl Document {
    /// `file:line` of a field of this document; of the document itself if the field isn't in it.
    pub fn place(&self, field: &str) -> String {
        format!("{}:{}", self.source, locate::line_of(&self.text, self.line, field))
    }

    /// A text field at the top of the object.
    pub fn text_field(&self, name: &str) -> &str {
        self.object[name].as_str().unwrap_or_default()
    }

    /// `metadata.name`
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
    }
}

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It can't be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't text.
    #[error("{file} is not UTF-8 text")]
    NotText {
        /// The file.
        file: String,
    },
    /// It isn't YAML or JSON.
    #[error("{0}")]
    Syntax(String),
    /// A document isn't an object of the API.
    #[error("{place}: {problem}")]
    NotAnObject {
        /// File and line.
        place: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// There is nothing in it.
    #[error("no objects in {0}")]
    Empty(String),
}

/// Reads all `files`: paths, directories (their `.yaml`, `.yml` and `.json` files, deeper ones only if
/// `recursive`), or `-` for standard input.
pub fn read(files: &[PathBuf], recursive: bool) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    for path in files {
        for file in expand(path, recursive)? {
            documents.extend(read_one(&file)?);
        }
    }
    if documents.is_empty() {
        let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        return Err(ManifestError::Empty(names.join(", ")));
    }
    Ok(documents)
}

fn read_one(path: &Path) -> Result<Vec<Document>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(failed)?;
        ("standard input".to_owned(), bytes)
    } else {
        (path.display().to_string(), std::fs::read(path).map_err(failed)?)
    };
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text),
        Err(_) => Err(ManifestError::NotText { file: name }),
    }
}

/// The files that a path stands for, in name order.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, ManifestError> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let entries: Result<Vec<PathBuf>, io::Error> =
        std::fs::read_dir(path).map_err(failed)?.map(|entry| Ok(entry?.path())).collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                files.extend(expand(&entry, true)?);
            }
        } else if is_manifest(&entry) {
            files.push(entry);
        }
    }
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// The objects in a text. Lists are taken apart; empty documents are skipped.
pub fn parse(source: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let text: Arc<str> = text.into();
    let source: Arc<str> = source.into();
    let parsed = api::yaml::parse_stream(&text)
        .map_err(|error| ManifestError::Syntax(format!("{source}: {error}")))?;
    let mut documents = Vec::new();
    for api::yaml::Document { parsed, line } in parsed {
        refuse_duplicates(&source, line, &parsed.duplicates)?;
        let document = Document { source: source.clone(), line, text: text.clone(), object: parsed.value };
        documents.extend(take_apart(document)?);
    }
    Ok(documents)
}

/// Of a key that stands twice only one value would reach the server, and nobody would hear of the other.
fn refuse_duplicates(source: &str, begin: usize, found: &[Duplicate]) -> Result<(), ManifestError> {
    let Some(Duplicate { path, line, .. }) = found.first() else { return Ok(()) };
    let place = format!("{source}:{}", line.unwrap_or(begin));
    Err(ManifestError::NotAnObject { place, problem: format!("{path} is set twice: remove one") })
}

fn take_apart(document: Document) -> Result<Vec<Document>, ManifestError> {
    check(&document)?;
    let is_list = document.text_field("kind").ends_with("List");
    match document.object.get("items").and_then(Value::as_array).filter(|_| is_list) {
        Some(items) => {
            let part = |object: &Value| Document { object: object.clone(), ..document.clone() };
            items.iter().map(|item| checked(part(item))).collect()
        }
        None => Ok(vec![document]),
    }
}

fn checked(document: Document) -> Result<Document, ManifestError> {
    check(&document).map(|()| document)
}

/// What every object needs, said before any server is asked.
fn check(document: &Document) -> Result<(), ManifestError> {
    let problem =
        |field: &str, problem: String| ManifestError::NotAnObject { place: document.place(field), problem };
    if !document.object.is_object() {
        return Err(problem("", "this document is not an object with apiVersion, kind and metadata".into()));
    }
    for field in ["apiVersion", "kind"] {
        match &document.object[field] {
            Value::String(text) if !text.is_empty() => {}
            Value::Null => return Err(problem("", format!("{field} is missing"))),
            other => return Err(problem(field, format!("{field} must be a text, not {other}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Document>, String> {
        parse("f.yaml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn documents_know_their_lines() {
        let text = "# c\napiVersion: v1\nkind: A\n---\n---\napiVersion: v1\nkind: B\nmetadata:\n  name: b\n";
        let documents = parsed(text).expect("good text");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].place("metadata.name"), "f.yaml:9");
        assert_eq!(documents[1].name(), "b");
    }

    #[test]
    fn lists_are_taken_apart() {
        let text =
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- {apiVersion: v1, kind: B}\n";
        let kinds: Vec<String> =
            parsed(text).expect("a list").iter().map(|doc| doc.text_field("kind").to_owned()).collect();
        assert_eq!(kinds, ["A", "B"]);
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let error = parsed("---\napiVersion: v1\nmetadata:\n  name: x\n").expect_err("no kind");
        assert_eq!(error, "f.yaml:2: kind is missing");
        let error = parsed("apiVersion: v1\nkind: 5\n").expect_err("kind is a number");
        assert_eq!(error, "f.yaml:2: kind must be a text, not 5");
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let text = "---\napiVersion: v1\nkind: ConfigMap\ndata:\n  a: b\n  a: c\n";
        let error = parsed(text).expect_err("one of them would be lost");
        assert_eq!(error, "f.yaml:6: data.a is set twice: remove one");
    }

    #[test]
    fn malformed_yaml_names_its_line() {
        let error = parsed("apiVersion: v1\nkind: A\nmetadata:\n  name: [x\nspec: 1\n").expect_err("broken");
        assert!(error.starts_with("f.yaml: ") && error.contains("line"), "{error}");
    }

    #[test]
    fn directories_are_read_in_order_and_deep_only_if_asked() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("deep")).expect("created");
        for (name, kind) in [("b.yaml", "B"), ("a.json", "A"), ("deep/c.yml", "C"), ("readme.txt", "no")] {
            let text = format!("{{\"apiVersion\": \"v1\", \"kind\": \"{kind}\"}}");
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let kinds = |recursive| {
            let documents = read(&[dir.path().to_owned()], recursive).expect("readable");
            documents.iter().map(|doc| doc.text_field("kind").to_owned()).collect::<String>()
        };
        assert_eq!((kinds(false), kinds(true)), ("AB".to_owned(), "ABC".to_owned()));
    }
}
