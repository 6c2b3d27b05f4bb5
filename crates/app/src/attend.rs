//! Working off intents: what falls due is done, then rescheduled or finished.

use crate::evidence::NewsError;
use crate::ports::{Commit, CommitError, Intent, IntentChange, IntentKind};
use crate::{Courier, Platform, Provider, Store};
use kernel::Timestamp;
use payments::{Care, poll_delay_s};

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Does what an intent says, once. An error leaves the intent as it is, for a later try.
    pub async fn attend(&self, intent: &Intent, now: Timestamp) -> Result<(), NewsError> {
        match intent.kind {
            IntentKind::Notify => self.notify(intent, now).await,
            IntentKind::Publish => self.publish(intent, now).await,
            IntentKind::Heal => {
                let next = self.heal(intent, now).await?;
                self.settle(intent, next).await
            }
            IntentKind::Refund => {
                let next = self.push_refund(intent, now).await?;
                self.settle(intent, next).await
            }
        }
    }

    pub(crate) async fn settle(
        &self,
        claimed: &Intent,
        next: Option<Timestamp>,
    ) -> Result<(), NewsError> {
        let next = next.map(|due| (due, claimed.tries.saturating_add(1)));
        let change = IntentChange::Settle { claimed: claimed.clone(), next };
        let commit = Commit { intents: vec![change], ..Commit::default() };
        self.commit(commit).await.map_err(NewsError::Commit)
    }

    /// Gives a payment what it needs. Returns when to look again.
    async fn heal(&self, intent: &Intent, now: Timestamp) -> Result<Option<Timestamp>, NewsError> {
        let again = now.plus_s(poll_delay_s(intent.tries));
        let mut asked = false;
        // Ask, then close, then expire: three steps at most, unless someone interferes.
        for _ in 0..8 {
            let found = self.store.payment(&intent.merchant, intent.subject).await?;
            let Some(known) = found else { return Ok(None) };
            let payment = known.value;
            match payment.care(now) {
                Care::Done => return Ok(None),
                Care::Rest { until } => return Ok(Some(until)),
                // Whatever was open stayed open: patience.
                Care::Ask(_) if asked => {
                    // The order's end is looked at sharply, not half an hour later.
                    return Ok(Some(again.min(payment.expires.max(now.plus_s(1)))));
                }
                Care::Close(_) if asked => return Ok(Some(again)),
                Care::Ask(attempts) => {
                    for attempt in attempts {
                        self.ask(&payment, attempt, now).await?;
                    }
                    asked = true;
                }
                Care::Close(attempts) => {
                    self.close_attempts(&payment, &attempts, now).await?;
                    asked = true;
                }
                Care::Expire => {
                    if let Ok(closed) = payment.close() {
                        match self.commit_close(closed, known.version, now).await {
                            Ok(()) => return Ok(None),
                            Err(CommitError::Stale(_)) => {}
                            Err(error) => return Err(NewsError::Commit(error)),
                        }
                    }
                }
            }
        }
        Ok(Some(again))
    }
}
