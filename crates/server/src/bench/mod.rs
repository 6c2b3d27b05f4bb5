//! `feiqian bench`: figures with the machine's own limit measured in the same run.

use crate::cli::Fault;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    scenario: String,
}

pub async fn run(_: BenchArgs) -> Result<(), Fault> {
    Ok(())
}
