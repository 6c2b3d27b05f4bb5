//! Rules a machine runs, and generators.
fn main() {}
