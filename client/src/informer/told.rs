//! Objects that a store needn't keep, because who is told of them keeps what it wants in a form of its own.
//!
//! The informer remembers only which objects there are and in which version, by which it tells the differences
//! after a relist. A pod in upstream's struct takes eight kilobytes or more, its identity takes half of one.

use super::Builder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::{borrow::Cow, fmt::Debug, sync::Arc};

/// What somebody wants to know of an object.
pub trait Digest: Clone + Debug + Send + Sync + 'static {
    /// The object, in the form in which it is decoded.
    type Of: Resource<DynamicType = ()> + DeserializeOwned;

    /// Reads an object.
    fn of(object: &Self::Of) -> Self;
}

/// An object's identity, and what is to be known of it while it is told.
#[derive(Debug, Clone)]
pub struct Told<T> {
    metadata: ObjectMeta,
    digest: Option<Arc<T>>,
}

impl<T: Digest> Told<T> {
    /// What is told of the object; none if this comes from a store.
    pub fn digest(&self) -> Option<&T> {
        self.digest.as_deref()
    }

    fn identity(&self) -> Told<T> {
        Told { metadata: self.metadata.clone(), digest: None }
    }
}

impl<T: Digest> Builder<Told<T>> {
    /// Keeps only the identities of the objects, once they have been told.
    pub fn forgetful(self) -> Self {
        self.keep(Told::identity)
    }
}

impl<'de, T: Digest> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let object = T::Of::deserialize(input)?;
        let meta = object.meta();
        let metadata = ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectMeta::default()
        };
        Ok(Told { metadata, digest: Some(Arc::new(T::of(&object))) })
    }
}

impl<T: Digest> Resource for Told<T> {
    type DynamicType = ();
    type Scope = <T::Of as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        T::Of::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        T::Of::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        T::Of::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::Of::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
