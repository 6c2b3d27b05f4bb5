//! The `feiqian` binary.
fn main() {}
