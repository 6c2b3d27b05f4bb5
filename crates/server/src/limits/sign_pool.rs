//! Threads that sign, one for each core, and the queue in front of them. Signing takes a quarter of
//! a millisecond; among the threads that answer it would delay everything cheap, refusals above all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

pub struct SignPool(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    threads: u32,
    /// Requests that will want a signature, queued or not.
    expected: AtomicU32,
    /// How long a signature took lately, in nanoseconds of time that passed: threads that have to
    /// share their cores are slower.
    took: AtomicU64,
}

/// A request that will want a signature, until it is dropped.
pub struct Expected(Arc<Shared>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Assumed before the first signature: RSA-2048.
const FIRST_TOOK: u64 = 300_000;

struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    /// When the queue was last seen empty.
    empty: Instant,
    closed: bool,
}

impl SignPool {
    pub fn start() -> SignPool {
        let queue = Queue { jobs: VecDeque::new(), empty: Instant::now(), closed: false };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            ready: Condvar::new(),
            threads: u32::try_from(cores).unwrap_or(u32::MAX),
            expected: AtomicU32::new(0),
            took: AtomicU64::new(FIRST_TOOK),
        });
        for number in 0..cores {
            let shared = shared.clone();
            let work = move || {
                while let Some(job) = shared.next() {
                    let start = Instant::now();
                    run(job);
                    shared.learn(start.elapsed());
                }
            };
            let thread = std::thread::Builder::new().name(format!("sign-{number}"));
            if let Err(error) = thread.spawn(work) {
                tracing::error!(%error, "a thread for signing was not started");
            }
        }
        SignPool(shared)
    }

    /// Does `work` on one of the threads, in turn. `None`: it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A client that has gone away does not wait.
            tell.send(work()).ok();
        });
        self.0.add(job);
        told.await.ok()
    }

    /// Counts a request that will want a signature.
    pub fn expect(&self) -> Expected {
        self.0.expected.fetch_add(1, Ordering::Relaxed);
        Expected(self.0.clone())
    }

    /// How long the first in the queue has waited, and how long ago the queue was empty.
    pub fn queue(&self) -> (Duration, Duration) {
        let queue = self.0.lock();
        match queue.jobs.front() {
            Some((since, _)) => (since.elapsed(), queue.empty.elapsed()),
            None => (Duration::ZERO, Duration::ZERO),
        }
    }

    /// How long one more would wait, if all that are expected came before it. A queue alone says
    /// it too late: whoever was let in while it was empty reaches it a moment later, together.
    pub fn prospect(&self) -> (Duration, Duration) {
        let (wait, standing) = self.queue();
        let took = Duration::from_nanos(self.0.took.load(Ordering::Relaxed));
        let before = self.0.expected.load(Ordering::Relaxed);
        (wait.max(took * before / self.0.threads), standing)
    }
}

impl Drop for SignPool {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.ready.notify_all();
    }
}

/// A panic ends the job, not the thread.
fn run(job: Job) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
        tracing::error!("signing panicked; the request is answered without");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moving mean over the last eight or so.
    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.took.load(Ordering::Relaxed);
        self.took.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }

    fn add(&self, job: Job) {
        let mut queue = self.lock();
        let now = Instant::now();
        if queue.jobs.is_empty() {
            queue.empty = now;
        }
        queue.jobs.push_back((now, job));
        drop(queue);
        self.ready.notify_one();
    }

    /// The next job; `None` once the pool is gone and the queue empty.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some((_, job)) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn jobs_are_done_in_turn_and_a_panic_costs_one_of_them() {
        let pool = Arc::new(SignPool::start());
        assert_eq!(pool.run(|| 1 + 1).await, Some(2));
        assert_eq!(pool.run(|| -> u8 { panic!("on purpose") }).await, None);
        let many: Vec<_> = (0..100)
            .map(|number| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.run(move || number).await })
            })
            .collect();
        for (number, task) in many.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number));
        }
    }

    #[tokio::test]
    async fn those_who_will_come_are_part_of_the_prospect() {
        let pool = SignPool::start();
        assert_eq!(pool.prospect().0, Duration::ZERO);
        let many: Vec<Expected> = (0..1_000).map(|_| pool.expect()).collect();
        let all = Duration::from_nanos(FIRST_TOOK) * 1_000 / pool.0.threads;
        assert_eq!(pool.prospect(), (all, Duration::ZERO));
        drop(many);
        assert_eq!(pool.prospect().0, Duration::ZERO);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_queue_tells_how_long_its_head_waits() {
        let pool = Arc::new(SignPool::start());
        let (free, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Every thread is held, and one more job waits.
        let tasks: Vec<_> = (0..=cores)
            .map(|_| {
                let (pool, held) = (pool.clone(), held.clone());
                tokio::spawn(async move { pool.run(move || held.lock().unwrap().recv()).await })
            })
            .collect();
        while pool.queue().0.is_zero() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (wait, standing) = pool.queue();
        assert!(standing >= wait && !wait.is_zero());
        (0..=cores).for_each(|_| free.send(()).unwrap());
        for task in tasks {
            assert!(task.await.unwrap().is_some());
        }
        assert_eq!(pool.queue(), (Duration::ZERO, Duration::ZERO));
    }
}
