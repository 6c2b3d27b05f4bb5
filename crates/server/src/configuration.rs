//! `feiqian config`: what is wrong with a configuration, what holds, and its schema.

use crate::cli::{Fault, Place, say};
use crate::config::{Checked, Config, ConfigError, Source, schema, shown};
use clap::Subcommand;
use serde_json::json;
use std::io::Write;
use std::path::Path;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Explain everything that is wrong, at once: file, environment, keys, certificates
    Check {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// Print the values that hold, and where each comes from; never a secret
    Show {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema, for editors and scripts
    Schema,
}

pub fn run(command: ConfigCommand) -> Result<(), Fault> {
    match command {
        ConfigCommand::Check { place, json } => check(&place, json),
        ConfigCommand::Show { place, json } => show(&place, json),
        ConfigCommand::Schema => {
            say!("{:#}", schema::document());
            Ok(())
        }
    }
}

fn check(place: &Place, json: bool) -> Result<(), Fault> {
    let file = place.file();
    let Checked { findings, .. } = Config::check(&file, std::env::vars());
    let ok = !findings.has_errors();
    if json {
        let list: Vec<_> = findings.iter().map(|it| it.json()).collect();
        let file = file.display().to_string();
        say!("{}", json!({ "ok": ok, "file": file, "findings": list }));
    } else if findings.is_empty() {
        say!("{}: nothing is wrong", file.display());
    } else {
        say!("{}\n{findings}", file.display());
    }
    if ok { Ok(()) } else { Err("the configuration cannot be used as it is".into()) }
}

fn show(place: &Place, json: bool) -> Result<(), Fault> {
    let config = Config::load(&place.file())?;
    let word = |source: &Source| match source {
        Source::Default => "default".to_owned(),
        Source::File => "file".to_owned(),
        Source::Environment(name) => format!("environment {name}"),
    };
    let list = shown(&config);
    if json {
        let one = |it: &crate::config::Shown| json!({ "key": it.key, "value": it.value, "source": word(&it.source) });
        say!("{}", serde_json::Value::Array(list.iter().map(one).collect()));
        return Ok(());
    }
    let width = list.iter().map(|it| it.key.len()).max().unwrap_or(0);
    for it in &list {
        let value = if it.value.is_null() { "(not set)".into() } else { it.value.to_string() };
        say!("{:<width$}  {value:<40}  {}", it.key, word(&it.source));
    }
    Ok(())
}

/// The configuration for a process that is about to serve: doubts are logged, errors are all told.
pub fn checked(file: &Path) -> Result<Config, Fault> {
    // A file that is not there has an error of its own, with the command that makes one.
    let config = Config::load(file)?;
    let Checked { files, findings, .. } = Config::check(file, std::env::vars());
    match files {
        Some(_) => {
            for it in findings.iter() {
                let (key, why, what_to_do) = (&it.key, &it.why, &it.remedy);
                tracing::warn!(key, why, what_to_do, "{}", it.what);
            }
            Ok(config)
        }
        None => {
            let findings = findings.errors();
            Err(ConfigError::Wrong { path: file.into(), findings }.into())
        }
    }
}
