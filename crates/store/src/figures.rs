//! What writers have done since the store was opened.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Done {
    commits: AtomicU64,
    batches: AtomicU64,
}

/// Commits answered and the batches that they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub commits: u64,
    pub batches: u64,
}

impl Done {
    /// One more batch.
    pub fn count(&self, commits: usize) {
        self.commits.fetch_add(commits.try_into().unwrap_or(0), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    pub fn figures(&self) -> Figures {
        Figures {
            commits: self.commits.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
        }
    }
}
