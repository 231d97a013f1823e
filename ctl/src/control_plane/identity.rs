//! Flags of a member that say whose tokens it makes and believes.

use apiserver::auth::AccountPolicy;

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
}
