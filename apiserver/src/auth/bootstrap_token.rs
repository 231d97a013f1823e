//! Bootstrap tokens: what a new node shows before it has a certificate.
//!
//! A token `ID.SECRET` is a Secret `kube-system/bootstrap-token-ID`; whoever shows it is in the group
//! `system:bootstrappers` until it expires or is deleted.

use api::bootstrap_token::{self, BootstrapToken, TokenTerms};
use jiff::Timestamp;
use serde_json::Value;

use super::Identity;
use super::tokens::equal_in_constant_time;

/// The group of all who show one.
pub const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";

/// Who shows `token`, given its Secret.
///
/// # Errors
/// Why it is nobody's.
pub fn identity(token: &BootstrapToken, stored: Option<&Value>, now: Timestamp) -> Result<Identity, String> {
    let unknown = || "the bootstrap token is unknown".to_owned();
    let of_type = |stored: &&Value| stored["type"] == bootstrap_token::SECRET_TYPE;
    let stored = stored.filter(of_type).filter(|stored| !api::object::is_deleting(stored));
    let stored = stored.ok_or_else(unknown)?;
    let field = |name| bootstrap_token::field(stored, name);
    let shown = equal_in_constant_time(field("token-secret").as_bytes(), token.secret().as_bytes());
    if !shown || field("token-id") != token.id {
        return Err(unknown());
    }
    let terms = TokenTerms::of_secret(stored);
    if terms.has_ended(now) {
        return Err(format!("the bootstrap token {} has expired", token.id));
    }
    if !terms.authentication {
        return Err(format!("the bootstrap token {} is not for authentication", token.id));
    }
    let mut groups = extra_groups(&field("auth-extra-groups"))?;
    groups.insert(0, BOOTSTRAPPERS_GROUP.to_owned());
    Ok(Identity { user: format!("system:bootstrap:{}", token.id), groups, ..Identity::default() })
}

/// Only groups below `system:bootstrappers:` can be given: nobody becomes an administrator by a Secret.
fn extra_groups(list: &str) -> Result<Vec<String>, String> {
    let mut groups: Vec<String> =
        list.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
    groups.sort();
    groups.dedup();
    match groups.iter().find(|group| !is_allowed(group)) {
        None => Ok(groups),
        Some(group) => Err(format!(
            "bootstrap group {group:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
        )),
    }
}

fn is_allowed(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || matches!(b, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use api::bootstrap_token::SECRET_TYPE;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut fields = vec![
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        fields.extend(change);
        let data: serde_json::Map<String, Value> = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(STANDARD.encode(value))))
            .collect();
        json!({ "type": SECRET_TYPE, "metadata": {}, "data": data })
    }

    fn judge(stored: &Value) -> String {
        let token = "abcdef.0123456789abcdef".parse().expect("a token");
        match identity(&token, Some(stored), Timestamp::from_second(1_000_000).expect("a time")) {
            Ok(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            Err(why) => why,
        }
    }

    #[test]
    fn who_shows_one_is_a_bootstrapper_until_it_ends() {
        assert_eq!(judge(&secret(&[])), "system:bootstrap:abcdef system:bootstrappers");
        assert_eq!(
            judge(&secret(&[("auth-extra-groups", "system:bootstrappers:b, system:bootstrappers:a")])),
            "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:a,system:bootstrappers:b"
        );
        let expired = "the bootstrap token abcdef has expired";
        assert_eq!(judge(&secret(&[("expiration", "1970-01-01T00:00:00Z")])), expired);
        assert_eq!(judge(&secret(&[("expiration", "some day")])), expired);
        assert!(judge(&secret(&[("expiration", "2100-01-01T00:00:00Z")])).starts_with("system:bootstrap"));
        let unknown = "the bootstrap token is unknown";
        assert_eq!(judge(&secret(&[("token-secret", "0123456789abcdee")])), unknown);
        assert_eq!(judge(&secret(&[("token-id", "abcdee")])), unknown);
        assert_eq!(judge(&json!({ "type": "Opaque", "data": secret(&[])["data"] })), unknown);
        assert_eq!(judge(&json!({})), unknown);
        assert_eq!(
            judge(&secret(&[("usage-bootstrap-authentication", "false")])),
            "the bootstrap token abcdef is not for authentication"
        );
        for group in
            ["system:masters", "system:bootstrappers:", "system:bootstrappers:A", "system:bootstrappers:a-"]
        {
            assert!(judge(&secret(&[("auth-extra-groups", group)])).contains("is invalid"), "{group}");
        }
    }
}
