//! RuntimeClass: which of the node's runtimes a pod asks for.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;

/// The cluster's classes, read when a pod's sandbox is made: there are few, and most pods name none.
#[derive(Clone)]
pub struct RuntimeClasses(Api<RuntimeClass>);

impl RuntimeClasses {
    /// Those of this cluster.
    pub fn new(client: kube::Client) -> Self {
        Self(Api::all(client))
    }

    /// The handler of the pod's class; empty without a class.
    ///
    /// # Errors
    /// What an event says: there is no such class, or nobody can be asked.
    pub async fn handler(&self, pod: &Pod) -> Result<String, String> {
        let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(String::new());
        }
        match self.0.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("runtimeclass.node.k8s.io {name:?} not found")),
            Err(error) => {
                Err(format!("failed to lookup RuntimeClass {name}: {}", crate::agent::chain(&error)))
            }
        }
    }
}
