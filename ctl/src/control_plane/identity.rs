//! Flags of a member that say whose tokens it makes and believes.

use std::path::PathBuf;

use apiserver::auth::AccountPolicy;
use apiserver::auth::oidc::{KeySource, OidcPolicy};

/// Whose tokens a member makes and believes; flags named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityArgs {
    /// Who makes service-account tokens; the first signs, all are believed
    /// [default: https://kubernetes.default.svc.cluster.local]
    #[arg(long, value_name = "URL,…", value_delimiter = ',', value_parser = parse_issuer)]
    service_account_issuer: Vec<String>,
    /// For whom tokens must be meant to be believed here [default: the first issuer]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// An OpenID Connect provider whose tokens are believed
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// For whom the provider's tokens must be meant
    #[arg(long, value_name = "NAME", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Who vouches for the provider, in PEM [default: whom this machine believes]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// The provider's keys in a file that something else keeps new [default: the provider is asked]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url", conflicts_with = "oidc_ca_file")]
    oidc_jwks_file: Option<PathBuf>,
    /// Which claim of the provider's tokens is the user
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// In front of the provider's users; - for nothing [default: the issuer and #, nothing for email]
    #[arg(long, value_name = "TEXT")]
    oidc_username_prefix: Option<String>,
    /// Which claim of the provider's tokens holds the groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// In front of the provider's groups
    #[arg(long, value_name = "TEXT", default_value = "")]
    oidc_groups_prefix: String,
}

impl IdentityArgs {
    /// What service-account tokens say of the cluster.
    pub fn account_policy(&self) -> AccountPolicy {
        let mut policy = AccountPolicy::default();
        if let Some(first) = self.service_account_issuer.first() {
            policy.audiences = vec![first.clone()];
            policy.issuers.clone_from(&self.service_account_issuer);
        }
        if !self.api_audiences.is_empty() {
            policy.audiences.clone_from(&self.api_audiences);
        }
        policy
    }

    /// What is said of an OpenID Connect provider, if there is one.
    pub fn provider(&self) -> Option<OidcPolicy> {
        let issuer = self.oidc_issuer_url.clone()?;
        let claim = &self.oidc_username_claim;
        let username_prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if claim == "email" => String::new(),
            None => format!("{issuer}#"),
        };
        Some(OidcPolicy {
            issuer,
            client_id: self.oidc_client_id.clone()?,
            username_claim: claim.clone(),
            username_prefix,
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            keys: match &self.oidc_jwks_file {
                Some(file) => KeySource::File(file.clone()),
                None => KeySource::Issuer(self.oidc_ca_file.clone()),
            },
        })
    }
}

/// Others find our keys below the issuer, so one with a scheme must be https.
fn parse_issuer(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some(("https", _)) => Ok(text.to_owned()),
        None if !text.is_empty() && !text.contains(':') => Ok(text.to_owned()),
        _ => Err(format!("\"{text}\" is neither an https:// URL nor a plain name")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        identity: IdentityArgs,
    }

    fn policy(flags: &[&str]) -> Result<AccountPolicy, clap::Error> {
        let line = ["test"].iter().chain(flags);
        Command::try_parse_from(line).map(|command| command.identity.account_policy())
    }

    #[test]
    fn audiences_are_the_issuer_unless_said_otherwise() {
        let plain = policy(&[]).expect("no flags");
        assert_eq!(plain.audiences, plain.issuers);
        let own = policy(&["--service-account-issuer", "https://a.example,https://b.example"]).expect("URLs");
        assert_eq!(own.issuers, ["https://a.example", "https://b.example"]);
        assert_eq!(own.audiences, ["https://a.example"]);
        let both = policy(&["--service-account-issuer=https://a", "--api-audiences=x,y"]).expect("URLs");
        assert_eq!(both.audiences, ["x", "y"]);
        assert!(policy(&["--service-account-issuer", "http://a.example"]).is_err());
    }
    #[test]
    fn a_providers_users_are_told_from_others_unless_said_otherwise() {
        let provider = |more: &[&str]| {
            let flags = ["test", "--oidc-issuer-url=https://id", "--oidc-client-id=c", "--oidc-jwks-file=k"];
            let command = Command::try_parse_from(flags.iter().chain(more)).expect("flags");
            command.identity.provider().expect("a provider")
        };
        assert_eq!(provider(&[]).username_prefix, "https://id#");
        assert_eq!(provider(&["--oidc-username-claim=email"]).username_prefix, "");
        assert_eq!(provider(&["--oidc-username-prefix=-"]).username_prefix, "");
        assert_eq!(provider(&["--oidc-username-prefix=x:"]).username_prefix, "x:");
        assert_eq!(provider(&[]).keys, KeySource::File("k".into()));
        let asked = ["test", "--oidc-issuer-url=https://id", "--oidc-client-id=c", "--oidc-ca-file=ca"];
        let asked = Command::try_parse_from(asked).expect("flags").identity.provider().expect("a provider");
        assert_eq!(asked.keys, KeySource::Issuer(Some("ca".into())));
        assert!(
            Command::try_parse_from(["test", "--oidc-issuer-url=https://id"]).is_err(),
            "the rest is missing"
        );
    }
}
