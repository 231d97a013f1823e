//! Asks the API server: TokenReview and SubjectAccessReview.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use crate::server::auth::{Act, Caller};

/// Who knows the cluster's users and their rights.
#[async_trait]
pub trait Reviewer: Send + Sync {
    /// Whose token it is; `None` if it isn't good.
    async fn whose(&self, token: &str) -> Result<Option<Caller>, kube::Error>;

    /// Whether the caller may do this on `node`.
    async fn may(&self, caller: &Caller, act: &Act, node: &str) -> Result<bool, kube::Error>;
}

/// The cluster's API server.
pub struct ClusterReviewer(pub kube::Client);

#[async_trait]
impl Reviewer for ClusterReviewer {
    async fn whose(&self, token: &str) -> Result<Option<Caller>, kube::Error> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.0.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let good = status.authenticated.unwrap_or(false);
        Ok(status.user.filter(|_| good).map(caller))
    }

    async fn may(&self, caller: &Caller, act: &Act, node: &str) -> Result<bool, kube::Error> {
        let attributes = ResourceAttributes {
            verb: Some(act.verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(act.subresource.to_owned()),
            name: Some(node.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            uid: Some(caller.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.iter().cloned().collect()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.0.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn caller(user: UserInfo) -> Caller {
    Caller {
        user: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default().into_iter().collect(),
    }
}
