//! `feiqian demo`: platform, WeChat simulator and a sample merchant in one process.

use crate::cli::Fault;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./demo-data")]
    pub data: PathBuf,
    /// 0 takes any free port
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Place, pay, notify and book one order, print each step, exit
    #[arg(long)]
    pub once: bool,
}

pub async fn run(_: DemoArgs) -> Result<(), Fault> {
    Ok(())
}
