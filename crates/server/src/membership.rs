//! This process among others: its node number, and the lease that makes number and claimed work its
//! own. A process whose lease ran out sends nothing any more; others take over.

use crate::gateway::Gateway;
use app::{Node, Store, StoreError};
use arc_swap::ArcSwap;
use kernel::SerialGenerator;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a silent process keeps its work. A dead one's work is taken up after this.
const LEASE: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// After a failure: a number may be free by then, and a process without a lease is not ready, and others wait for it.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// A lease is not used to its last moment: what is sent must be answered within it.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error(
        "node number {0} is in use by another process; give each its own server.node, or leave it out"
    )]
    Taken(u16),
    #[error("all node numbers are in use; end processes that are not needed, or try again in {} s: those of dead ones are free then", LEASE.as_secs())]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct Membership {
    wanted: Option<u16>,
    held: ArcSwap<Held>,
}

struct Held {
    node: Node,
    until: Instant,
}

impl Membership {
    /// Takes a node number. A number of our own choice may still be kept by the process that had it
    /// before: that is waited for.
    pub async fn join<S: Store>(
        store: &S,
        wanted: Option<u16>,
    ) -> Result<Membership, MembershipError> {
        let start = Instant::now();
        loop {
            if let Some(held) = enroll(store, wanted).await? {
                return Ok(Membership { wanted, held: ArcSwap::from_pointee(held) });
            }
            match wanted {
                Some(_) if start.elapsed() <= LEASE + MARGIN => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Some(number) => return Err(MembershipError::Taken(number)),
                None => return Err(MembershipError::Full),
            }
        }
    }

    pub fn node(&self) -> Node {
        self.held.load().node.clone()
    }

    /// How long the lease may still be relied on.
    pub fn left(&self) -> Duration {
        let until = self.held.load().until;
        until.saturating_duration_since(Instant::now()).saturating_sub(MARGIN)
    }

    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    async fn renew<S: Store>(&self, store: &S) -> Result<Option<Node>, StoreError> {
        // Counted from before the question: the store counts from when it hears it.
        let asked = Instant::now();
        let node = self.node();
        if store.renew(&node, lease_ms()).await? {
            self.held.store(Arc::new(Held { node, until: asked + LEASE }));
            return Ok(None);
        }
        let Some(held) = enroll(store, self.wanted).await? else { return Ok(None) };
        let node = held.node.clone();
        self.held.store(Arc::new(held));
        Ok(Some(node))
    }
}

fn lease_ms() -> i64 {
    i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX)
}

async fn enroll<S: Store>(store: &S, wanted: Option<u16>) -> Result<Option<Held>, StoreError> {
    let asked = Instant::now();
    // Never used again, not even by this process after it lost its lease.
    let holder = seal::random_nonce();
    let node = store.enroll(wanted, &holder, lease_ms()).await?;
    Ok(node.map(|node| Held { node, until: asked + LEASE }))
}

/// Renews the lease until the process stops and `done` says that its work has ended.
pub async fn keep(gateway: Arc<Gateway>, mut done: watch::Receiver<bool>) {
    let mut pause = RENEW_EVERY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            ended = done.wait_for(|it| *it) => { ended.ok(); break }
        }
        let renewed = gateway.membership.renew(gateway.store()).await;
        pause = if gateway.membership.holds() { RENEW_EVERY } else { AGAIN_AFTER };
        match renewed {
            Ok(None) => {}
            Ok(Some(node)) => {
                tracing::warn!(
                    node = node.number,
                    "the lease had run out; this is another node now"
                );
                let serials = SerialGenerator::new(node.number, gateway.zone());
                gateway.platform.draw_from(serials);
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
        }
    }
    leave(&gateway).await;
}

/// Gives the number and everything claimed back at once.
pub async fn leave(gateway: &Gateway) {
    let left = gateway.store().retire(&gateway.membership.node()).await;
    if let Err(error) = left {
        tracing::warn!(%error, "the lease could not be given back; it runs out by itself");
    }
}
