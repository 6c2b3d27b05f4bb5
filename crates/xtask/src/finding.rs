//! One broken rule at one place: what is wrong, why it matters, what to do.

use std::fmt;

#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    /// From 1; 1 too when the finding is about the file as a whole.
    pub line: usize,
    pub what: String,
    pub why: &'static str,
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, what, why, remedy } = self;
        write!(f, "{path}:{line}: {what}\n    why:  {why}\n    do:   {remedy}")
    }
}

/// For tests: `path:line` of each finding, so that a table of expectations stays readable.
#[cfg(test)]
pub fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|it| format!("{}:{}", it.path, it.line)).collect()
}
