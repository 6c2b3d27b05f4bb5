//! A request and an answer of the core, without HTTP around them.

/// What came in. Header names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimRequest {
    pub method: String,
    /// Exactly as in the request line.
    pub path_and_query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl SimRequest {
    /// - Input: `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or("")
    }
}

/// What goes out, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimAnswer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// To wait before answering, or before cutting the line.
    pub delay_ms: u64,
    /// Cut the line instead of answering.
    pub drop: bool,
}

impl SimAnswer {
    /// - Input: `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }
}
