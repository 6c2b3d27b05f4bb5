//! Who may begin. Two gates: a queue for cores that must not stand, and a bounded number of
//! requests under way.

use super::Refused;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A queue that has not been empty for long is no burst but overload, and waiting in it helps
/// nobody: only this part of the usual wait is granted then.
const STANDING_SHARE: u32 = 4;

/// Whether one more fits into a queue whose head has waited for `wait`, and which was empty
/// `standing` ago, if nobody shall wait longer than `most`.
///
/// - Source: controlled delay, with two waits as in "Fail at Scale" (ACM Queue, 2015).
pub fn admits(wait: Duration, standing: Duration, most: Duration) -> bool {
    wait <= if standing > most { most / STANDING_SHARE } else { most }
}

/// A request under way.
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

pub struct Room {
    places: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
}

/// Counts one who waits, however they stop waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    pub fn new(size: usize) -> Room {
        Room { places: Arc::new(Semaphore::new(size)), size, waiting: AtomicUsize::new(0) }
    }

    /// A place, at once or within `most`. As many may wait as there are places.
    pub async fn enter(&self, most: Duration) -> Result<Permit, Refused> {
        let taken = |it| Permit { _place: it };
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(taken(place));
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.size {
            return Err(Refused::Overload);
        }
        match tokio::time::timeout(most, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(taken(place)),
            Ok(Err(_)) | Err(_) => Err(Refused::Overload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_longer_than_a_queue_that_stands() {
        let ms = Duration::from_millis;
        let check = |wait, standing, want| {
            assert_eq!(admits(ms(wait), ms(standing), ms(200)), want, "{wait} {standing}");
        };
        check(0, 0, true);
        check(200, 200, true);
        check(201, 200, false);
        check(50, 201, true);
        check(51, 201, false);
        check(0, 10_000, true);
    }

    #[tokio::test]
    async fn as_many_wait_as_work_and_a_place_that_is_left_is_taken() {
        let room = Arc::new(Room::new(1));
        let long = Duration::from_secs(60);
        let first = room.enter(long).await.unwrap();
        assert!(room.enter(Duration::ZERO).await.is_err(), "nobody waits longer than allowed");
        let second = tokio::spawn({
            let room = room.clone();
            async move { room.enter(long).await.map(|_| ()) }
        });
        while room.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(room.enter(long).await.is_err(), "the queue is as long as the room is large");
        drop(first);
        assert!(second.await.unwrap().is_ok());
        assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
    }
}
