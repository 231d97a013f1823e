//! What a member of the control plane stands on: its certificates ([`certificates`]), whom it
//! believes ([`identity`]), what it takes on ([`load`]), how it comes to a living cluster ([`joining`]) and what keeps its
//! objects ([`backing`]), the own store or a stock etcd cluster ([`stock_etcd`]).

pub mod backing;
pub mod certificates;
pub mod identity;
pub mod joining;
pub mod load;
pub mod stock_etcd;
