//! Which objects a command line means: `TYPE[,TYPE] [NAME …]` or `TYPE/NAME …`, as for kubectl.

use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::failure::Failure;

/// A word for a kind, and a name if one object is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As typed.
    pub word: String,
    /// `None` means all of them.
    pub name: Option<String>,
}

/// A kind, and a name if one object is meant.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The kind.
    pub kind: Kind,
    /// `None` means all of them.
    pub name: Option<String>,
}

/// Reads the words of the command line. `verb` is named in the messages.
pub fn parse(verb: &str, words: &[String]) -> Result<Vec<Wanted>, Failure> {
    match words {
        [] => Err(Failure::Usage(format!("say what to {verb}, such as `amoeba {verb} pods`"))),
        _ if words.iter().any(|word| word.contains('/')) => words.iter().map(|word| pair(word)).collect(),
        [types] => Ok(split(types).map(|word| Wanted { word, name: None }).collect()),
        [types, names @ ..] => {
            let each = |word: String| {
                names.iter().map(move |name| Wanted { word: word.clone(), name: Some(name.clone()) })
            };
            Ok(split(types).flat_map(each).collect())
        }
    }
}

fn split(types: &str) -> impl Iterator<Item = String> {
    types.split(',').filter(|word| !word.is_empty()).map(str::to_owned)
}

fn pair(word: &str) -> Result<Wanted, Failure> {
    match word.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Wanted { word: kind.to_owned(), name: Some(name.to_owned()) })
        }
        Some(_) => Err(Failure::Usage(format!("\"{word}\" is not of the form TYPE/NAME"))),
        None => Err(Failure::Usage(format!(
            "\"{word}\" has no slash while another word has: write either `TYPE NAME …` or `TYPE/NAME …`"
        ))),
    }
}

/// Finds the kinds. A name of a category, or of several kinds, must be asked one by one.
pub async fn resolve(cluster: &Cluster, wanted: &[Wanted]) -> Result<Vec<Selected>, Failure> {
    let kinds = cluster.kinds().await?;
    let mut selected = Vec::new();
    for Wanted { word, name } in wanted {
        let found = kinds.resolve(word).map_err(|error| Failure::Usage(error.to_string()))?;
        if found.len() > 1 && name.is_some() {
            return Err(Failure::Usage(format!("\"{word}\" means several kinds: a name needs one of them")));
        }
        selected.extend(found.into_iter().map(|kind| Selected { kind: kind.clone(), name: name.clone() }));
    }
    Ok(selected)
}

/// Finds exactly named objects; all of a kind is an error.
pub async fn named(cluster: &Cluster, verb: &str, words: &[String]) -> Result<Vec<(Kind, String)>, Failure> {
    let selected = resolve(cluster, &parse(verb, words)?).await?;
    let named = |one: Selected| match one.name {
        Some(name) => Ok((one.kind, name)),
        None => Err(Failure::Usage(format!(
            "say which {} to {verb}, such as {}/NAME",
            one.kind.singular, one.kind.singular
        ))),
    };
    selected.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse("get", &words) {
            Ok(wanted) => {
                let show = |one: &Wanted| format!("{}:{}", one.word, one.name.as_deref().unwrap_or("*"));
                wanted.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn words_become_kinds_and_names() {
        let table = [
            ("pods", "pods:*"),
            ("pods,svc", "pods:* svc:*"),
            ("pod a b", "pod:a pod:b"),
            ("pod/a deploy/b", "pod:a deploy:b"),
            ("pods,svc a", "pods:a svc:a"),
            ("", "say what to get, such as `amoeba get pods`"),
            ("pod/", "\"pod/\" is not of the form TYPE/NAME"),
            ("a/b/c", "\"a/b/c\" is not of the form TYPE/NAME"),
        ];
        for (line, expected) in table {
            assert_eq!(parsed(line), expected, "{line}");
        }
        assert!(parsed("pod pod/a").contains("has no slash"));
    }
}
