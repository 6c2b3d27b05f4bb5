//! Everything that the port shows of a store: two dumps are equal if nothing was written between.

use app::{Intent, JournalRow, Merchant, Notification, Store, Try, Versioned};
use kernel::{MerchantId, Timestamp};
use ledger::{Account, Balance};
use payments::{Payment, Refund};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    pub merchants: Vec<Versioned<Merchant>>,
    pub payments: Vec<Versioned<Payment>>,
    pub refunds: Vec<Versioned<Refund>>,
    pub notifications: Vec<Versioned<Notification>>,
    pub tries: Vec<Try>,
    pub intents: Vec<Intent>,
    pub postings: Vec<JournalRow>,
    pub balances: Vec<(Account, Balance)>,
    pub recomputed: Vec<(Account, Balance)>,
}

/// The first and last moments that there are.
pub const FROM: Timestamp = Timestamp::from_ms(0);
pub const UNTIL: Timestamp = Timestamp::from_ms(i64::MAX);

/// - Input: `also` names merchants that may have rows without an entry or an order of their own.
pub async fn dump(store: &impl Store, also: &[&MerchantId]) -> Dump {
    let mut dump = Dump {
        intents: store.due(UNTIL, u32::MAX).await.unwrap(),
        balances: store.balances().await.unwrap(),
        recomputed: store.recomputed_balances().await.unwrap(),
        ..Dump::default()
    };
    let mut ids: BTreeSet<MerchantId> = also.iter().copied().cloned().collect();
    for it in store.merchants().await.unwrap() {
        dump.merchants.push(store.merchant(&it.id).await.unwrap().unwrap());
        ids.insert(it.id);
    }
    for it in store.payments_after(None, u32::MAX).await.unwrap() {
        dump.payments.push(store.payment(&it.merchant, it.serial).await.unwrap().unwrap());
        ids.insert(it.merchant);
    }
    for id in &ids {
        dump.postings.extend(store.postings_between(id, FROM, UNTIL).await.unwrap());
        for it in store.refunds_between(id, FROM, UNTIL).await.unwrap() {
            dump.refunds.push(store.refund(id, it.serial).await.unwrap().unwrap());
        }
        for it in store.notifications(id, None, None, u32::MAX).await.unwrap() {
            dump.notifications.push(store.notification(id, it.id).await.unwrap().unwrap());
            dump.tries.extend(store.tries_of(id, it.id).await.unwrap());
        }
    }
    dump
}
