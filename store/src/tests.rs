//! Tests of the parts together, cheapest first.

mod apply;
mod backup;
mod differential;
mod disk;
mod generate;
mod group;
mod growth;
mod links;
mod measure;
mod seeded;
mod sim;
mod single;
mod snapshots;
