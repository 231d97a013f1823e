//! Kinds that are asked and not stored: their creation is a question.

use api::status::Status;
use http::StatusCode;

use crate::auth::reviews;
use crate::negotiate::{self, Form};
use crate::registry::strategy::Review;
use crate::response;
use crate::verbs::{Answer, Call, decode, submit};

/// Answers with the review, its status filled in.
pub async fn review(call: Call<'_>, review: Review, body: &[u8]) -> Answer {
    if negotiate::form(call.headers)? != Form::Plain {
        return Err(Status::not_acceptable(&["application/json"]).into());
    }
    let draft = decode::object(&call, body)?;
    let (authorizer, who) = (&call.server.authorizer, call.identity);
    let answered = match review {
        Review::SelfSubjectAccess => reviews::self_subject_access(authorizer, who, draft.object)?,
        Review::SubjectAccess => reviews::subject_access(authorizer, draft.object)?,
        Review::LocalSubjectAccess => {
            reviews::local_subject_access(authorizer, call.namespace(), draft.object)?
        }
        Review::SelfSubjectRules => reviews::self_subject_rules(authorizer, who, draft.object)?,
        Review::SelfSubject => reviews::self_subject(who, draft.object),
        Review::Token => reviews::token(&call.server.authenticator, draft.object).await?,
    };
    let mut response = response::json(StatusCode::CREATED, &answered);
    submit::warn(&mut response, &draft.warnings);
    Ok(response)
}
