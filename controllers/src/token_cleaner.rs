//! Bootstrap tokens that have ended are deleted, as upstream's tokencleaner does.

use crate::plan::{Plan, Target, to_value};
use api::bootstrap_token::{SECRET_TYPE, TokenTerms};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

/// What to do for a Secret with a bootstrap token.
pub fn reconcile(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let is_token = secret.type_.as_deref() == Some(SECRET_TYPE);
    let terms = TokenTerms::of_secret(&to_value(secret));
    match terms.expiration.filter(|_| is_token && secret.metadata.deletion_timestamp.is_none()) {
        Some(end) if end > now => plan.look_again(end),
        Some(_) => plan.delete(Target::of(secret), "the bootstrap token has ended"),
        None => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::bootstrap_token::BootstrapToken;

    #[test]
    fn tokens_go_when_they_end() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().expect("a token");
        let secret = |expiration| -> Secret {
            let terms = TokenTerms { expiration, ..TokenTerms::default() };
            serde_json::from_value(token.to_secret(&terms)).expect("a Secret")
        };
        assert_eq!(reconcile(&secret(None), at(5)), Plan::nothing());
        assert_eq!(reconcile(&secret(Some(at(9))), at(5)).again, Some(at(9)));
        let gone = reconcile(&secret(Some(at(5))), at(5)).to_string();
        assert!(gone.starts_with("delete secrets kube-system/bootstrap-token-abcdef"), "{gone}");
        let other = Secret { type_: Some("Opaque".to_owned()), ..secret(Some(at(5))) };
        assert_eq!(reconcile(&other, at(5)), Plan::nothing());
    }
}
