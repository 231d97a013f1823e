//! The door from outside: informers, work queue, leader election, over kube.
