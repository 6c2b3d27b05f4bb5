//! Where an operation may be overtaken, or cut off for ever: before and after each effect.
//!
//! There is no runtime. The driver polls one operation at a time, and dropping one that waits here
//! is what a crash looks like from inside.

use super::world::World;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

pub(super) type Shared = Arc<Mutex<World>>;

/// A panic while the world was held ends the run anyway; its words should be heard, not this lock's.
pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pending once.
#[derive(Default)]
struct Pause {
    waited: bool,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.waited, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Lets others go first, or the crash come, if the dice say so.
pub(super) async fn pause(world: &Shared) {
    let wanted = lock(world).wants_pause();
    if wanted {
        Pause::default().await;
    }
}

/// Lets others go first.
pub(super) async fn once() {
    Pause::default().await;
}
