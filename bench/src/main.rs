//! Measures the built binary.
fn main() {}
