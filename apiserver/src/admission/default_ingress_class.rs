//! DefaultIngressClass: an ingress that names no class gets the default one.

use api::object;
use api::status::Status;
use serde_json::{Value, json};

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How classes were named before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// Names the default class, if there is one.
///
/// # Errors
/// 403 if several classes claim to be the default and none is the newest.
pub async fn set(call: &Call<'_>, ingress: &mut Value) -> Outcome<()> {
    if ingress["spec"].get("ingressClassName").is_some()
        || object::annotations(ingress).contains_key(OLD_CLASS)
    {
        return Ok(());
    }
    let classes = lookup::list(call, "networking.k8s.io", "ingressclasses", "").await?;
    let is_default =
        |class: &&Value| object::annotations(class).get(DEFAULT).is_some_and(|value| value == "true");
    let mut defaults: Vec<&Value> = classes.iter().map(AsRef::as_ref).filter(is_default).collect();
    let created =
        |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    defaults.sort_by_key(|class| (std::cmp::Reverse(created(class)), object::name(class).to_owned()));
    match defaults.as_slice() {
        [] => {}
        [one, two, ..] if created(one) == created(two) => {
            let why = format!("{} default IngressClasses were found, only 1 allowed", defaults.len());
            return Err(
                Status::forbidden("ingresses", "networking.k8s.io", object::name(ingress), &why).into()
            );
        }
        [newest, ..] => ingress["spec"]["ingressClassName"] = json!(object::name(newest)),
    }
    Ok(())
}
