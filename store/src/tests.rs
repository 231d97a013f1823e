//! Tests of the parts together, cheapest first.

mod amnesia;
mod apply;
mod backup;
mod differential;
mod disk;
mod generate;
mod group;
mod growth;
mod lag;
mod links;
mod measure;
mod network;
mod removal;
mod seeded;
mod sim;
mod single;
mod snapshots;
