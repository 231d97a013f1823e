//! YAML as Kubernetes reads and writes it.
//!
//! Reading follows YAML 1.1's scalars (`yes`, `on`, `0644`), since that is what manifests are written for;
//! every error knows its line. Writing follows kubectl's `-o yaml`.

mod emit;
mod read;
mod scalar;

use crate::schema::{ParseError, Parsed};

pub use emit::to_yaml;

/// One document of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it says, and which keys stood twice (with their lines in the stream).
    pub parsed: Parsed,
    /// The line of its first content, from 1.
    pub line: usize,
}

/// Reads a stream of YAML or JSON documents; empty ones are left out. Errors: the line and what is wrong.
pub fn parse_stream(text: &str) -> Result<Vec<Document>, ParseError> {
    read::documents(text)
}

/// Reads exactly one document; nothing at all is null.
pub(crate) fn parse_one(text: &str) -> Result<Parsed, ParseError> {
    let documents = parse_stream(text)?;
    match <[Document; 1]>::try_from(documents) {
        Ok([document]) => Ok(document.parsed),
        Err(documents) if documents.is_empty() => Ok(Parsed::default()),
        Err(documents) => {
            let message = "expected a single document in the stream".to_string();
            Err(ParseError::Yaml { message, line: documents[1].line })
        }
    }
}
