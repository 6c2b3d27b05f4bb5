//! Threads that sign, one for each core, and the queue in front of them. Signing takes a quarter of
//! a millisecond; among the threads that answer it would delay everything cheap, refusals above all.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

pub struct SignPool(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    /// When the queue was last seen empty.
    empty: Instant,
    closed: bool,
}

impl SignPool {
    pub fn start() -> SignPool {
        let queue = Queue { jobs: VecDeque::new(), empty: Instant::now(), closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), ready: Condvar::new() });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..cores {
            let shared = shared.clone();
            let work = move || {
                while let Some(job) = shared.next() {
                    run(job)
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

    /// How long the first in the queue has waited, and how long ago the queue was empty.
    pub fn queue(&self) -> (Duration, Duration) {
        let queue = self.0.lock();
        match queue.jobs.front() {
            Some((since, _)) => (since.elapsed(), queue.empty.elapsed()),
            None => (Duration::ZERO, Duration::ZERO),
        }
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
