//! Tests of the parts together, cheapest first.

mod apply;
mod generate;
mod group;
mod measure;
mod sim;
mod single;
