//! Telling merchants, on a ladder, until they say they heard.

use crate::evidence::NewsError;
use crate::ports::{Commit, Delivery, Intent, IntentChange, IntentKind, Put, StoreError, Subject};
use crate::{CommitError, Courier, Platform, Provider, Store, Versioned};
use kernel::{MerchantId, Serial, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationEvent {
    PaymentSucceeded,
    RefundSucceeded,
    RefundClosed,
    RefundAbnormal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationState {
    Pending,
    Delivered,
    /// The ladder is at its end; a replay starts it again.
    GivenUp,
}

/// One thing that a merchant is told. Its id stays the same over all tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub id: Serial,
    pub merchant: MerchantId,
    pub payment: Serial,
    pub refund: Option<Serial>,
    pub event: NotificationEvent,
    pub url: String,
    pub created: Timestamp,
    pub state: NotificationState,
    /// How often it was posted.
    pub tries: u32,
    /// How often it had been posted when the ladder last began.
    pub ladder_from: u32,
}

/// One try, for people who ask why a merchant did not hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    pub merchant: MerchantId,
    pub notification: Serial,
    /// 1 for the first.
    pub number: u32,
    pub at: Timestamp,
    pub status: Option<u16>,
    pub duration_ms: u64,
    pub body_head: String,
    pub error: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("merchant {merchant} has no notification {id}")]
    NotFound { merchant: MerchantId, id: Serial },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the replay could not be written")]
    Commit(#[source] CommitError),
}

/// The pause after `tries` failed tries on `ladder`, or `None` at its end.
pub fn next_try_s(ladder: &[i64], tries: u32) -> Option<i64> {
    let rung = usize::try_from(tries.checked_sub(1)?).ok()?;
    ladder.get(rung).copied()
}

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Posts a notification once, and schedules the next try if it was not heard.
    pub(crate) async fn notify(&self, intent: &Intent, now: Timestamp) -> Result<(), NewsError> {
        let merchant = &intent.merchant;
        let found = self.store.notification(merchant, intent.subject).await?;
        let Some(Versioned { value: before, version }) = found else {
            return self.settle(intent, None).await;
        };
        let Some(subject) = self.subject(&before).await? else {
            return self.settle(intent, None).await;
        };
        let Some(to) = self.store.merchant(merchant).await? else {
            return self.settle(intent, None).await;
        };
        let delivery = self.courier.deliver(&to.value, &before, &subject).await;
        let (after, due) = self.after_try(&before, &delivery, now);
        let commit = Commit {
            tries: vec![try_of(&after, &delivery, now)],
            notifications: vec![Put { value: after, expected: version }],
            intents: vec![IntentChange::Settle {
                claimed: intent.clone(),
                next: due.map(|it| (it, intent.tries + 1)),
            }],
            ..Commit::default()
        };
        match self.commit(commit).await {
            // Someone else posted it meanwhile, or replays it: their word counts.
            Ok(()) | Err(CommitError::Stale(_)) => Ok(()),
            Err(error) => Err(NewsError::Commit(error)),
        }
    }

    fn after_try(
        &self,
        before: &Notification,
        delivery: &Delivery,
        now: Timestamp,
    ) -> (Notification, Option<Timestamp>) {
        let tries = before.tries + 1;
        let rung = tries - before.ladder_from;
        let pause = next_try_s(&self.policy().notify_ladder_s, rung);
        let (state, due) = match (delivery.accepted(), pause) {
            (true, _) => (NotificationState::Delivered, None),
            // A notification that was heard once stays heard, whatever a replay meets.
            (false, _) if before.state == NotificationState::Delivered => (before.state, None),
            (false, Some(pause)) => (NotificationState::Pending, Some(now.plus_s(pause))),
            (false, None) => (NotificationState::GivenUp, None),
        };
        (Notification { tries, state, ..before.clone() }, due)
    }

    async fn subject(&self, it: &Notification) -> Result<Option<Subject>, StoreError> {
        let Some(payment) = self.store.payment(&it.merchant, it.payment).await? else {
            return Ok(None);
        };
        let refund = match it.refund {
            None => None,
            Some(serial) => self.store.refund(&it.merchant, serial).await?.map(|it| it.value),
        };
        Ok(Some(Subject { payment: payment.value, refund }))
    }

    /// Posts a notification again, now, whatever became of it; the ladder begins anew.
    pub async fn replay(
        &self,
        merchant: &MerchantId,
        id: Serial,
        now: Timestamp,
    ) -> Result<Notification, ReplayError> {
        let missing = || ReplayError::NotFound { merchant: merchant.clone(), id };
        let found = self.store.notification(merchant, id).await?.ok_or_else(missing)?;
        let before = found.value;
        let after =
            Notification { state: NotificationState::Pending, ladder_from: before.tries, ..before };
        let intent = Intent {
            merchant: merchant.clone(),
            kind: IntentKind::Notify,
            subject: id,
            due: now,
            tries: 0,
            holder: None,
        };
        let commit = Commit {
            notifications: vec![Put { value: after.clone(), expected: found.version }],
            intents: vec![IntentChange::Schedule(intent)],
            ..Commit::default()
        };
        self.commit(commit).await.map_err(ReplayError::Commit)?;
        Ok(after)
    }
}

fn try_of(after: &Notification, delivery: &Delivery, now: Timestamp) -> Try {
    Try {
        merchant: after.merchant.clone(),
        notification: after.id,
        number: after.tries,
        at: now,
        status: delivery.status,
        duration_ms: delivery.duration_ms,
        body_head: delivery.body_head.clone(),
        error: delivery.error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::next_try_s;

    #[test]
    fn the_ladder_is_climbed_once() {
        let check = |tries, want| assert_eq!(next_try_s(&[15, 30, 180], tries), want);
        check(0, None);
        check(1, Some(15));
        check(3, Some(180));
        check(4, None);
    }
}
