//! The store's other face: etcd's v3 gRPC API over it, and the contract over a stock etcd.
