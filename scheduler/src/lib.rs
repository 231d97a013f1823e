//! Where: a pod and a snapshot to a node.
