//! What the API server serves, and what a user's word for a kind means.
//!
//! A word may be a plural, a singular, a short name or a kind, in any case, and may be qualified by a group
//! (`deployments.apps`) or by version and group (`deployments.v1.apps`). The core group wins over others,
//! then the order of discovery decides, as in kubectl.

use serde_json::Value;

use super::Cluster;
use super::request::RequestError;

/// One kind of object that the API server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// `get`, `list`, `watch`, …
    pub verbs: Vec<String>,
    /// `status`, `scale`, …
    pub subresources: Vec<String>,
}

impl Kind {
    /// `v1` or `apps/v1`
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As kubectl prints it before a name: `pod`, `deployment.apps`
    pub fn printed(&self) -> String {
        match self.group.as_str() {
            "" => self.singular.clone(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// As error messages of the API server say it: `pods`, `deployments.apps`
    #[cfg(test)]
    pub fn qualified_plural(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether the API server offers `verb` for it.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    fn is_called(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.eq_ignore_ascii_case(word)
            || self.short_names.iter().any(|short| short == word)
    }

    fn is_of(&self, qualifier: &str) -> bool {
        self.group == qualifier || format!("{}.{}", self.version, self.group) == qualifier
    }
}

/// The kinds of one API server, core group first.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<Kind>);

/// A word that means no kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKind {
    /// Of a word on the command line.
    #[error("the server doesn't have a resource type \"{word}\"{hint}")]
    Word {
        /// The word.
        word: String,
        /// A similar one, as a sentence; may be empty.
        hint: String,
    },
    /// Of an object.
    #[error("no matches for kind \"{kind}\" in version \"{api_version}\"{hint}")]
    Object {
        /// `kind` of the object.
        kind: String,
        /// `apiVersion` of the object.
        api_version: String,
        /// What may have been meant, as a sentence; may be empty.
        hint: String,
    },
}

impl Kinds {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }

    /// What `word` means: one kind, or all kinds of a category.
    pub fn resolve(&self, word: &str) -> Result<Vec<&Kind>, UnknownKind> {
        let lower = word.to_lowercase();
        let members: Vec<&Kind> =
            self.0.iter().filter(|kind| kind.categories.contains(&lower) && kind.can("list")).collect();
        match self.find(&lower) {
            Some(kind) => Ok(vec![kind]),
            None if !members.is_empty() => Ok(members),
            None => Err(UnknownKind::Word { word: word.to_owned(), hint: self.hint(&lower) }),
        }
    }

    /// The one kind that `word` means; a category is none.
    pub fn resolve_one(&self, word: &str) -> Result<&Kind, UnknownKind> {
        let lower = word.to_lowercase();
        self.find(&lower).ok_or_else(|| UnknownKind::Word { word: word.to_owned(), hint: self.hint(&lower) })
    }

    fn find(&self, lower: &str) -> Option<&Kind> {
        let called = |word: &str| self.0.iter().filter(|kind| kind.is_called(word)).collect::<Vec<_>>();
        if let Some(kind) = called(lower).first() {
            return Some(kind);
        }
        let (word, qualifier) = lower.split_once('.')?;
        called(word).into_iter().find(|kind| kind.is_of(qualifier))
    }

    /// The kind of an object.
    pub fn of_object(&self, api_version: &str, kind: &str) -> Result<&Kind, UnknownKind> {
        let known = self.0.iter().find(|known| known.kind == kind && known.api_version() == api_version);
        known.ok_or_else(|| UnknownKind::Object {
            kind: kind.to_owned(),
            api_version: api_version.to_owned(),
            hint: self.object_hint(kind),
        })
    }

    fn object_hint(&self, kind: &str) -> String {
        match self.0.iter().find(|known| known.kind.eq_ignore_ascii_case(kind)) {
            Some(known) => format!(": did you mean {} of {}?", known.kind, known.api_version()),
            None => self.hint(&kind.to_lowercase()),
        }
    }

    /// "; did you mean …?" if a known word is at most two edits away.
    fn hint(&self, lower: &str) -> String {
        let words = self.0.iter().flat_map(|kind| [&kind.plural, &kind.singular]);
        let closest = words.map(|word| (edits(lower, word), word)).min();
        match closest {
            Some((distance, word)) if distance <= 2 => format!(": did you mean \"{word}\"?"),
            _ => String::new(),
        }
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let best = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

/// Asks the API server, both halves of discovery at once.
pub async fn discover(cluster: &Cluster) -> Result<Kinds, RequestError> {
    let (core, groups) = tokio::try_join!(cluster.discovery("/api"), cluster.discovery("/apis"))?;
    Ok(from_discovery(&[core, groups]))
}

/// The kinds in `APIGroupDiscoveryList`s. Only the first (preferred) version of a group is kept.
pub fn from_discovery(lists: &[Value]) -> Kinds {
    let groups = lists.iter().flat_map(|list| array(list, "items"));
    Kinds(groups.flat_map(kinds_of_group).collect())
}

fn kinds_of_group(group: &Value) -> Vec<Kind> {
    let name = text(&group["metadata"], "name");
    let Some(preferred) = array(group, "versions").first() else { return Vec::new() };
    let version = text(preferred, "version");
    array(preferred, "resources").iter().map(|resource| kind_of(&name, &version, resource)).collect()
}

fn kind_of(group: &str, version: &str, resource: &Value) -> Kind {
    let kind = text(&resource["responseKind"], "kind");
    let singular = text(resource, "singularResource");
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text(resource, "resource"),
        singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
        short_names: texts(resource, "shortNames"),
        categories: texts(resource, "categories"),
        namespaced: text(resource, "scope") == "Namespaced",
        verbs: texts(resource, "verbs"),
        subresources: array(resource, "subresources").iter().map(|sub| text(sub, "subresource")).collect(),
        kind,
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    array(value, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A small world of kinds for tests of this crate.
#[cfg(test)]
pub mod testing {
    use super::*;

    fn resource(line: &str) -> Kind {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [group, version, kind, plural, short, namespaced, category] = words[..] else {
            panic!("seven words: {line}")
        };
        let optional = |word: &str| if word == "-" { vec![] } else { vec![word.to_owned()] };
        Kind {
            group: if group == "-" { String::new() } else { group.to_owned() },
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: optional(short),
            categories: optional(category),
            namespaced: namespaced == "yes",
            verbs: ["get", "list", "watch", "create", "delete", "patch"].map(str::to_owned).to_vec(),
            subresources: vec![],
        }
    }

    /// The kinds of the tests.
    pub fn kinds() -> Kinds {
        let lines = [
            "- v1 Pod pods po yes all",
            "- v1 Node nodes no no -",
            "- v1 Event events ev yes -",
            "- v1 Service services svc yes all",
            "- v1 Namespace namespaces ns no -",
            "- v1 ConfigMap configmaps cm yes -",
            "apps v1 Deployment deployments deploy yes all",
            "apps v1 ReplicaSet replicasets rs yes all",
            "events.k8s.io v1 Event events ev yes -",
        ];
        Kinds(lines.into_iter().map(resource).collect())
    }

    /// One of them.
    pub fn kind(word: &str) -> Kind {
        kinds().resolve_one(word).expect("a kind of the tests").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::kinds;
    use super::*;
    use serde_json::json;

    fn resolved(word: &str) -> String {
        match kinds().resolve(word) {
            Ok(found) => found.iter().map(|kind| kind.qualified_plural()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn words_mean_what_kubectl_users_expect() {
        let table = [
            ("po", "pods"),
            ("Pod", "pods"),
            ("PODS", "pods"),
            ("deploy", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployment.v1.apps", "deployments.apps"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("all", "pods services deployments.apps replicasets.apps"),
            ("pdos", "the server doesn't have a resource type \"pdos\": did you mean \"pod\"?"),
            ("unicorns", "the server doesn't have a resource type \"unicorns\""),
            ("deployments.batch", "the server doesn't have a resource type \"deployments.batch\""),
        ];
        for (word, expected) in table {
            assert_eq!(resolved(word), expected, "{word}");
        }
    }

    #[test]
    fn an_object_of_the_wrong_version_is_told_the_right_one() {
        let error = kinds().of_object("extensions/v1beta1", "Deployment").expect_err("not served");
        let expected = "no matches for kind \"Deployment\" in version \"extensions/v1beta1\": \
                        did you mean Deployment of apps/v1?";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn discovery_is_read_with_the_preferred_version_only() {
        let resource = |version: &str| {
            json!({"version": version, "resources": [{
                "resource": "deployments", "singularResource": "deployment", "scope": "Namespaced",
                "responseKind": {"kind": "Deployment"}, "verbs": ["get", "list"], "shortNames": ["deploy"],
                "subresources": [{"subresource": "scale"}]}]})
        };
        let list = json!({"items": [{"metadata": {"name": "apps"},
            "versions": [resource("v1"), resource("v1beta1")]}]});
        let kinds = from_discovery(&[list]);
        assert_eq!(kinds.0.len(), 1);
        let found = kinds.resolve_one("deploy").expect("known");
        assert_eq!((found.api_version().as_str(), found.printed().as_str()), ("apps/v1", "deployment.apps"));
        assert_eq!(found.subresources, ["scale"]);
    }

    #[test]
    fn edits_count_insertions_deletions_and_changes() {
        for (a, b, distance) in [("", "", 0), ("a", "", 1), ("pods", "pdos", 2), ("pod", "pods", 1)] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }
}
