//! Answers in upstream's words.

use super::*;

#[test]
fn texts_are_upstreams() {
    let table = [
        (Status::not_found("pods", "", "web"), 404, r#"pods "web" not found"#),
        (
            Status::already_exists("deployments", "apps", "web"),
            409,
            r#"deployments.apps "web" already exists"#,
        ),
        (
            Status::modified("pods", "", "web"),
            409,
            "Operation cannot be fulfilled on pods \"web\": the object has been modified; please apply your \
             changes to the latest version and try again",
        ),
        (Status::forbidden("pods", "", "", "no"), 403, "pods is forbidden: no"),
        (Status::timeout("late", 1), 504, "Timeout: late"),
        (Status::internal("disk"), 500, "Internal error occurred: disk"),
    ];
    for (status, code, text) in table {
        assert_eq!((status.code(), status.message.as_str()), (code, text));
    }
}

#[test]
fn an_invalid_object_lists_each_field() {
    let errors = vec![
        FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
        FieldError::required("spec.selector", ""),
    ];
    let json = Status::invalid("Deployment", "apps", "web", errors).to_json();
    assert_eq!(
        json["message"],
        "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal \
         to 0, spec.selector: Required value]"
    );
    assert_eq!(json["details"]["causes"][1]["reason"], "FieldValueRequired");
    assert_eq!(json["details"]["kind"], "Deployment");
    assert_eq!(json["code"], 422);
}

#[test]
fn a_future_revision_names_its_cause() {
    let json = Status::too_large_resource_version(9, 3).to_json();
    assert_eq!(json["message"], "Timeout: Too large resource version: 9, current: 3");
    assert_eq!(json["details"]["retryAfterSeconds"], 1);
    assert_eq!(json["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[test]
fn a_success_carries_no_code_until_the_server_chooses_one() {
    let status = Status::success(None);
    assert_eq!(status.code(), 200);
    assert!(status.to_json().get("code").is_none());
    assert_eq!(status.with_code(201).to_json()["code"], 201);
}
