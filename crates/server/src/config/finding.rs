//! What is wrong with a configuration: what, where, why, and what to do about it.

use super::Origin;
use serde_json::{Value, json};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    /// It works, and someone should look at it.
    Warning,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A line of the file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `server.listen`, `channel.wechat.cost_bps`; empty if it is about the whole file.
    pub key: String,
    /// The variable of the environment, if the value came from there.
    pub variable: Option<String>,
    pub spot: Option<Spot>,
    pub what: String,
    pub why: String,
    pub remedy: String,
}

impl Finding {
    pub fn json(&self) -> Value {
        json!({
            "severity": self.severity.word(),
            "where": self.key,
            "variable": self.variable,
            "line": self.spot.as_ref().map(|it| it.line),
            "column": self.spot.as_ref().map(|it| it.column),
            "text": self.spot.as_ref().map(|it| it.text.clone()),
            "what": self.what,
            "why": self.why,
            "what_to_do": self.remedy,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.word(), self.what)?;
        if !self.key.is_empty() {
            write!(f, "\n  where:  {}", self.key)?;
        }
        if let Some(variable) = &self.variable {
            write!(f, "\n          variable {variable}")?;
        }
        if let Some(Spot { line, column, text }) = &self.spot {
            let number = line.to_string();
            let (gap, indent) = (" ".repeat(number.len()), " ".repeat(column - 1));
            write!(f, "\n          line {line}, column {column}")?;
            write!(f, "\n          {number} | {text}\n          {gap} | {indent}^")?;
        }
        write!(f, "\n  why:    {}\n  do:     {}", self.why, self.remedy)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub fn error(
        &mut self,
        origin: &Origin,
        key: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(origin.finding(Severity::Error, key, what.into(), why.into(), remedy.into()));
    }

    pub fn warning(
        &mut self,
        origin: &Origin,
        key: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(origin.finding(Severity::Warning, key, what.into(), why.into(), remedy.into()));
    }

    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|it| it.severity == Severity::Error)
    }

    pub fn errors(self) -> Findings {
        Findings(self.0.into_iter().filter(|it| it.severity == Severity::Error).collect())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{finding}")?;
        }
        Ok(())
    }
}
