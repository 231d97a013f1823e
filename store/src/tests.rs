//! Tests of the parts together, cheapest first.

mod apply;
mod generate;
mod group;
mod growth;
mod measure;
mod sim;
mod single;
