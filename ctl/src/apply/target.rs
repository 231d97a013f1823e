//! Documents, the objects of the cluster that they speak of, and what is wrong with them, line by line.

use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path;
use crate::cluster::request::{RequestError, StatusBody};
use crate::failure::Failure;
use crate::manifest::Document;
use crate::output::name as printed_name;
use crate::print;
use crate::verb::note;

/// What is said after errors that were found before the first write.
pub const NOTHING: &str = "nothing was changed";

/// A document and the object of the cluster that it speaks of.
pub struct Target {
    /// The document.
    pub document: Document,
    /// Its kind.
    pub kind: Kind,
    /// Where it lives; unused for cluster-wide kinds.
    pub namespace: String,
}

impl Target {
    /// Where it is.
    pub fn path(&self) -> String {
        path::object(&self.kind, &self.namespace, self.document.name())
    }

    /// Where its like are.
    pub fn collection(&self) -> String {
        path::collection(&self.kind, Some(&self.namespace))
    }

    /// `deployment.apps/web created`
    pub fn line(&self, verb: &str) -> String {
        format!("{} {verb}", printed_name(&self.kind, &self.document.object))
    }

    /// Prints what is wrong, one line for each field, and counts them.
    pub fn complain(&self, error: &RequestError) -> usize {
        let lines = explain(self, error);
        lines.iter().for_each(|line| note(format!("{} {line}", print::styled(print::BAD, "error:"))));
        lines.len()
    }

    /// The same, as the end of a command that has written some documents already.
    pub fn failed(&self, error: &RequestError) -> Failure {
        let errors = self.complain(error);
        Failure::Reported { errors, consequence: "this and what follows in the manifest was not applied" }
    }
}

/// Finds the kind and the namespace of every document, or says everything that is wrong with them.
pub async fn targets(
    cluster: &Cluster,
    flag: Option<&str>,
    documents: Vec<Document>,
) -> Result<Vec<Target>, Failure> {
    let kinds = cluster.kinds().await?;
    let mut targets = Vec::new();
    let mut wrong = Vec::new();
    for document in documents {
        let kind = kinds.of_object(document.text_field("apiVersion"), document.text_field("kind"));
        match kind.map_err(|error| format!("{}: {error}", document.place("kind"))) {
            Ok(kind) => match placed(cluster, flag, kind.clone(), document) {
                Ok(target) => targets.push(target),
                Err(problem) => wrong.push(problem),
            },
            Err(problem) => wrong.push(problem),
        }
    }
    wrong.iter().for_each(|problem| note(format!("{} {problem}", print::styled(print::BAD, "error:"))));
    if wrong.is_empty() {
        Ok(targets)
    } else {
        Err(Failure::Reported { errors: wrong.len(), consequence: NOTHING })
    }
}

fn placed(
    cluster: &Cluster,
    flag: Option<&str>,
    kind: Kind,
    mut document: Document,
) -> Result<Target, String> {
    if !kind.namespaced {
        return Ok(Target { document, kind, namespace: String::new() });
    }
    let own = document.namespace().map(str::to_owned);
    if let (Some(own), Some(flag)) = (&own, flag)
        && own != flag
    {
        return Err(format!(
            "{}: the namespace of the object is \"{own}\", but -n says \"{flag}\": use -n {own} or change the file",
            document.place("metadata.namespace")
        ));
    }
    let namespace = own.unwrap_or_else(|| cluster.namespace().to_owned());
    api::object::set_namespace(&mut document.object, &namespace);
    Ok(Target { document, kind, namespace })
}

/// What is wrong with a document, each field with its line.
fn explain(target: &Target, error: &RequestError) -> Vec<String> {
    let document = &target.document;
    let subject = format!("{} \"{}\"", target.kind.kind, document.name());
    let line = |field: &str, text: &str| format!("{}: {subject}: {text}", document.place(field));
    match error.status() {
        Some(status) if !status.causes.is_empty() && status.code == 422 => {
            status.causes.iter().map(|(field, message)| line(field, &format!("{field}: {message}"))).collect()
        }
        Some(status) => match quoted_fields(status) {
            fields if fields.is_empty() => vec![line(mistyped_field(&status.message), &status.message)],
            fields => {
                fields.iter().map(|(what, field)| line(field, &format!("{what} \"{field}\""))).collect()
            }
        },
        None => vec![line("", &api::error::chain(error))],
    }
}

/// `strict decoding error: unknown field "a.b", duplicate field "c"` as its parts.
fn quoted_fields(status: &StatusBody) -> Vec<(String, String)> {
    let Some((_, list)) = status.message.split_once("strict decoding error: ") else { return Vec::new() };
    let part = |part: &str| {
        let (what, rest) = part.split_once(" \"")?;
        Some((what.to_owned(), rest.trim_end_matches('"').to_owned()))
    };
    list.split(", ").filter_map(part).collect()
}

/// The field in `… into Go struct field DeploymentSpec.spec.replicas of type int32`, without the name of the
/// type; empty for any other message.
fn mistyped_field(message: &str) -> &str {
    let after = message.split_once("Go struct field ").map_or("", |(_, after)| after);
    let field = after.split(' ').next().unwrap_or_default();
    field.split_once('.').map_or("", |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kinds::testing::kind;
    use crate::manifest;

    fn target(text: &str) -> Target {
        let document = manifest::parse("f.yaml", text).expect("a manifest").remove(0);
        Target { document, kind: kind("deploy"), namespace: "default".into() }
    }

    const TEXT: &str =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: -1\n  oops: 1\n";

    fn refused(status: StatusBody) -> Vec<String> {
        explain(&target(TEXT), &RequestError::Status(Box::new(status)))
    }

    #[test]
    fn each_invalid_field_has_its_line() {
        let causes = vec![("spec.replicas".to_owned(), "Invalid value: -1: must be at least 0".to_owned())];
        let lines =
            refused(StatusBody { code: 422, reason: "Invalid".into(), message: "long".into(), causes });
        let expected = "f.yaml:6: Deployment \"web\": spec.replicas: Invalid value: -1: must be at least 0";
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn unknown_fields_have_their_lines() {
        let message =
            "strict decoding error: unknown field \"spec.oops\", duplicate field \"kind\"".to_owned();
        let lines = refused(StatusBody { code: 400, message, ..StatusBody::default() });
        let expected = [
            "f.yaml:7: Deployment \"web\": unknown field \"spec.oops\"",
            "f.yaml:2: Deployment \"web\": duplicate field \"kind\"",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_field_of_the_wrong_type_has_its_line() {
        let message =
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32";
        let lines = refused(StatusBody { code: 400, message: message.into(), ..StatusBody::default() });
        assert_eq!(lines, [format!("f.yaml:6: Deployment \"web\": {message}")]);
    }

    #[test]
    fn any_other_refusal_is_told_for_the_document() {
        let lines = refused(StatusBody { code: 403, message: "forbidden".into(), ..StatusBody::default() });
        assert_eq!(lines, ["f.yaml:1: Deployment \"web\": forbidden"]);
    }
}
