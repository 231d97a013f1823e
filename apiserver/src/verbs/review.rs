//! Kinds that are asked and not stored: their creation is a question.

use api::status::Status;
use http::StatusCode;

use crate::auth::reviews;
use crate::negotiate::{self, Form};
use crate::registry::strategy::Review;
use crate::response;
use crate::verbs::{Answer, Call, decode};

/// Answers with the review, its status filled in.
pub async fn review(call: Call<'_>, review: Review, body: &[u8]) -> Answer {
    if negotiate::form(call.headers)? != Form::Plain {
        return Err(Status::not_acceptable(&["application/json"]).into());
    }
    let asked = decode::object(&call, body)?.warned(&call);
    let (authorizer, who) = (&call.server.authorizer, call.identity);
    let answered = match review {
        Review::SelfSubjectAccess => reviews::self_subject_access(authorizer, who, asked)?,
        Review::SubjectAccess => reviews::subject_access(authorizer, asked)?,
        Review::LocalSubjectAccess => reviews::local_subject_access(authorizer, call.namespace(), asked)?,
        Review::SelfSubjectRules => reviews::self_subject_rules(authorizer, who, asked)?,
        Review::SelfSubject => reviews::self_subject(who, asked),
        Review::Token => reviews::token(&call.server.authenticator, asked).await?,
    };
    Ok(response::json(StatusCode::CREATED, &answered))
}
