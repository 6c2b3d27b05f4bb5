//! The `feiqian` binary: everything is in the library.

use clap::Parser;
use server::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("feiqian: no threads could be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::cli::run(Cli::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if server::cli::reader_left(error.as_ref()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("feiqian: {}", server::cli::explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
