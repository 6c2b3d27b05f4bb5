//! After quiet: what the platform says against what the channel, the merchants and the payers saw.

use super::accounts::ACCOUNTS;
use super::clients::{Ask, Order};
use super::pause::lock;
use super::run::{Run, at_once};
use super::world::Patience;
use crate::wechat::{OrderView, RefundView};
use app::{Merchant, Notification, NotificationEvent, NotificationState, Store};
use kernel::{Currency, Money, Serial};
use ledger::{Account, AccountKind};
use payments::{
    Attempt, LatePolicy, Origin, Payment, PaymentState, Refund, RefundState, UnexpectedCause,
    UnexpectedState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything, as it is stored and as the channel tells it.
struct Evidence<'a> {
    run: &'a Run,
    payments: Vec<Payment>,
    refunds: Vec<Refund>,
    notifications: Vec<Notification>,
    /// By the number that we gave, which is the attempt's.
    channel: BTreeMap<String, OrderView>,
    /// Attempts that were paid at the channel, with whether our order was open then.
    paid: BTreeMap<String, bool>,
    findings: Vec<String>,
}

/// What is wrong, in words, and how often the run met what it is there for.
pub(super) struct Examined {
    pub(super) findings: Vec<String>,
    pub(super) met: BTreeMap<&'static str, usize>,
}

pub(super) fn examine(run: &Run) -> Examined {
    let mut it = match gather(run) {
        Ok(it) => it,
        Err(error) => {
            let findings = vec![format!("the store cannot be read: {error}")];
            return Examined { findings, met: BTreeMap::new() };
        }
    };
    it.books();
    it.money_at_channels();
    it.merchants_balances();
    it.channel_orders();
    it.payments_make_sense();
    it.promises_to_merchants();
    it.refunds_on_both_sides();
    it.notifications();
    it.events();
    Examined { met: it.met(), findings: it.findings }
}

fn gather(run: &Run) -> Result<Evidence<'_>, app::StoreError> {
    let payments = at_once(run.store.payments_after(None, 10_000))?;
    let (mut refunds, mut notifications) = (Vec::new(), Vec::new());
    for it in &payments {
        refunds.extend(at_once(run.store.refunds_of(&it.merchant, it.serial))?);
    }
    for it in &run.merchants {
        notifications.extend(at_once(run.store.notifications(&it.id, None, None, 10_000))?);
    }
    let mut world = lock(&run.world);
    let now = world.now;
    let orders = world.sim.orders(now).into_iter();
    let channel = orders.map(|it| (it.out_trade_no.clone(), it)).collect();
    Ok(Evidence {
        run,
        payments,
        refunds,
        notifications,
        channel,
        paid: world.paid.clone(),
        findings: Vec::new(),
    })
}

impl Evidence<'_> {
    fn check(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.findings.push(words());
        }
    }

    fn met(&self) -> BTreeMap<&'static str, usize> {
        let payments =
            |holds: &dyn Fn(&Payment) -> bool| self.payments.iter().filter(|it| holds(it)).count();
        let money = |cause, state| {
            let all = self.payments.iter().flat_map(|it| &it.unexpected);
            all.filter(|it| it.cause == cause && it.state == state).count()
        };
        let refunds = |origin, state| {
            self.refunds.iter().filter(|it| it.origin == origin && it.state == state).count()
        };
        let heard = |state| self.notifications.iter().filter(|it| it.state == state).count();
        use NotificationState::{Delivered, GivenUp};
        use Origin::{Automatic, Merchant};
        use RefundState::{Abnormal, Closed, Success};
        use UnexpectedCause::{LateSuccess, SecondSuccess, WrongAmount};
        use UnexpectedState::{Held, Refunding};
        let reopened = |it: &Payment| {
            it.receipt.as_ref().is_some_and(|it| self.paid.get(it.attempt.as_str()) == Some(&false))
        };
        BTreeMap::from([
            ("payment paid", payments(&|it| it.state == PaymentState::Success)),
            ("payment closed", payments(&|it| it.state == PaymentState::Closed)),
            ("payment paid late and reopened", payments(&reopened)),
            ("payment with three attempts", payments(&|it| it.attempts.len() > 2)),
            ("payment with a contradiction", payments(&|it| !it.contradictions.is_empty())),
            ("second payment sent back", money(SecondSuccess, Refunding)),
            ("late payment sent back", money(LateSuccess, Refunding)),
            ("wrong amount held", money(WrongAmount, Held)),
            ("wrong amount released", money(WrongAmount, Refunding)),
            ("sent back in vain", money(SecondSuccess, Held) + money(LateSuccess, Held)),
            ("refund done", refunds(Merchant, Success)),
            ("refund closed", refunds(Merchant, Closed)),
            ("refund abnormal", refunds(Merchant, Abnormal)),
            ("automatic refund done", refunds(Automatic, Success)),
            ("automatic refund closed", refunds(Automatic, Closed)),
            ("automatic refund abnormal", refunds(Automatic, Abnormal)),
            ("notification delivered", heard(Delivered)),
            ("notification given up", heard(GivenUp)),
        ])
    }

    fn held(&mut self, account: &Account) -> i64 {
        match at_once(self.run.store.balance(account)) {
            Ok(balance) => balance.held(account.kind.side()),
            Err(error) => {
                self.findings.push(format!("{account} cannot be read: {error}"));
                0
            }
        }
    }

    /// The platform's own audit, which also proves that no guarded account is below zero.
    fn books(&mut self) {
        match at_once(app::audit(&self.run.store, |_| ())) {
            Ok(report) => self.findings.extend(report.findings),
            Err(error) => self.findings.push(error.to_string()),
        }
        let stored: BTreeSet<Serial> = self.payments.iter().map(|it| it.serial).collect();
        let seen: BTreeSet<Serial> = lock(&self.run.world).watch.payments.keys().copied().collect();
        self.check(stored == seen, || format!("stored {stored:?}, committed {seen:?}"));
    }

    /// Attempts with their payments.
    fn attempts(&self) -> Vec<(Payment, Attempt)> {
        let of = |it: &Payment| -> Vec<(Payment, Attempt)> {
            it.attempts.iter().map(|attempt| (it.clone(), attempt.clone())).collect()
        };
        self.payments.iter().flat_map(of).collect()
    }

    /// What the channel has taken and not given back is what it owes us, cost included.
    fn money_at_channels(&mut self) {
        for account in &ACCOUNTS {
            let orders = self.channel.values().filter(|it| it.mchid == account.mchid);
            let mut real = 0;
            for it in orders {
                let back = it.refunds.iter().filter(|it| it.status == "SUCCESS");
                real += it.paid_minor.unwrap_or(0) - back.map(|it| it.amount_minor).sum::<i64>();
            }
            let of = |kind| Account::channel(account.channel, kind, Currency::Cny);
            let owed = self.held(&of(AccountKind::ChannelReceivable));
            let cost = self.held(&of(AccountKind::ChannelCost));
            self.check(owed + cost == real, || {
                format!("{} holds {real} of ours; booked {owed} + {cost}", account.channel)
            });
        }
    }

    /// Each balance follows from payments and refunds alone.
    fn merchants_balances(&mut self) {
        let (mut fees, merchants) = (0, self.run.merchants.clone());
        for Merchant { id, .. } in &merchants {
            let (mut own, mut suspense, mut payable) = (0, 0, 0);
            for it in self.payments.iter().filter(|it| it.merchant == *id) {
                if it.state == PaymentState::Success {
                    own += it.terms.amount.minor() - it.fee().minor();
                    fees += it.fee().minor();
                }
                suspense += it.unexpected.iter().map(|it| it.amount.minor()).sum::<i64>();
            }
            for it in self.refunds.iter().filter(|it| it.merchant == *id) {
                if it.state == RefundState::Closed {
                    continue;
                }
                match it.origin {
                    Origin::Merchant => {
                        own -= it.terms.amount.minor() - it.fee_back.minor();
                        fees -= it.fee_back.minor();
                    }
                    Origin::Automatic => suspense -= it.terms.amount.minor(),
                }
                if it.state != RefundState::Success {
                    payable += it.terms.amount.minor();
                }
            }
            let of = |kind| Account::merchant(id, kind, Currency::Cny);
            let pending = self.held(&of(AccountKind::MerchantPending));
            let available = self.held(&of(AccountKind::MerchantAvailable));
            let have = [
                pending + available,
                self.held(&of(AccountKind::Suspense)),
                self.held(&of(AccountKind::RefundPayable)),
            ];
            let want = [own, suspense, payable];
            self.check(have == want, || {
                format!("merchant {id} has {have:?}, should have {want:?}")
            });
        }
        let have = self.held(&Account::platform(AccountKind::FeeIncome, Currency::Cny));
        self.check(have == fees, || format!("fee income is {have}, should be {fees}"));
    }

    /// Every order at the channel is an attempt of ours, and whatever was paid there we know.
    fn channel_orders(&mut self) {
        let attempts = self.attempts();
        for (number, order) in self.channel.clone() {
            let known = attempts.iter().find(|(_, it)| it.serial.as_str() == number);
            let Some((payment, attempt)) = known else {
                self.findings.push(format!("{number} at the channel is no attempt of ours"));
                continue;
            };
            let Some(paid_minor) = order.paid_minor else {
                self.check(attempt.receipt.is_none(), || format!("{number} is not paid there"));
                continue;
            };
            let Some(receipt) = &attempt.receipt else {
                let (no, state) = (&payment.terms.order_no, attempt.state);
                self.findings.push(format!("{no}: {number} is paid there, {state:?} with us"));
                continue;
            };
            let same = receipt.amount.minor() == paid_minor;
            self.check(same, || format!("{number}: {} of {paid_minor}", receipt.amount));
            let transaction = order.transaction_id.as_deref() == Some(&receipt.transaction);
            self.check(transaction, || format!("{number} has another transaction"));
            let right = paid_minor == payment.terms.amount.minor();
            let in_time = self.paid.get(&number).copied().unwrap_or(false);
            self.money_has_a_place(payment, attempt, right, in_time);
        }
    }

    /// Paid money pays its order, or stands among the unexpected with its reason.
    fn money_has_a_place(
        &mut self,
        payment: &Payment,
        attempt: &Attempt,
        right: bool,
        in_time: bool,
    ) {
        let no = &payment.terms.order_no;
        let serial = attempt.serial;
        let pays = payment.receipt.as_ref().is_some_and(|it| it.attempt == serial);
        let unexpected = payment.unexpected.iter().filter(|it| it.attempt == serial);
        let causes: Vec<UnexpectedCause> = unexpected.map(|it| it.cause).collect();
        self.check(usize::from(pays) + causes.len() == 1, || {
            format!("{no}: money of {serial} is in {} places", usize::from(pays) + causes.len())
        });
        for cause in causes {
            let fits = match cause {
                UnexpectedCause::WrongAmount => !right,
                UnexpectedCause::SecondSuccess => right && payment.state == PaymentState::Success,
                UnexpectedCause::LateSuccess => {
                    right && payment.late == LatePolicy::Refund && !in_time
                }
                UnexpectedCause::WrongCurrency => false,
            };
            self.check(fits, || format!("{no}: money of {serial} is kept apart for {cause:?}"));
        }
        if right && in_time {
            let state = payment.state;
            self.check(state == PaymentState::Success, || {
                format!("{no}: paid in time and rightly, but it is {state:?}")
            });
        }
    }

    fn payments_make_sense(&mut self) {
        for it in self.payments.clone() {
            let no = &it.terms.order_no;
            let paid = it.state == PaymentState::Success;
            self.check(paid == it.receipt.is_some(), || format!("{no} is {:?}", it.state));
            let waits = matches!(it.state, PaymentState::NotPay | PaymentState::UserPaying);
            self.check(!waits || it.has_held_money(), || format!("{no} is still {:?}", it.state));
            let open = it.open_attempts().count();
            self.check(open == 0, || format!("{no} still has {open} open attempts"));
            for money in &it.unexpected {
                let automatic = self.refunds.iter().filter(|refund| {
                    refund.origin == Origin::Automatic
                        && refund.attempt == money.attempt
                        && refund.state != RefundState::Closed
                });
                let back: Vec<Money> = automatic.map(|it| it.terms.amount).collect();
                let want = match money.state {
                    UnexpectedState::Held => vec![],
                    UnexpectedState::Refunding => vec![money.amount],
                };
                self.check(back == want, || format!("{no}: {money:?} goes back as {back:?}"));
            }
            let own = self
                .refunds
                .iter()
                .filter(|refund| refund.payment == it.serial && refund.origin == Origin::Merchant);
            let done = own.filter(|it| it.state == RefundState::Success);
            let (sum, fee) = done.fold((0, 0), |(sum, fee), it| {
                (sum + it.terms.amount.minor(), fee + it.fee_back.minor())
            });
            let whole = sum == it.terms.amount.minor();
            self.check(!whole || fee == it.fee().minor(), || {
                format!("{no} is refunded whole, but {fee} of its fee {} came back", it.fee())
            });
        }
    }

    /// What was acknowledged exists, once, with the terms that were asked for.
    fn promises_to_merchants(&mut self) {
        for order in &self.run.orders {
            let merchant = &self.run.merchants[order.merchant].id;
            let Order { terms, acknowledged, close_acknowledged, .. } = order;
            let found = self
                .payments
                .iter()
                .filter(|it| it.merchant == *merchant && it.terms.order_no == terms.order_no);
            let found: Vec<Payment> = found.cloned().collect();
            let no = &terms.order_no;
            self.check(found.len() <= 1, || format!("{no} exists {} times", found.len()));
            let Some(serial) = acknowledged else { continue };
            let Some(payment) = found.first() else {
                self.findings.push(format!("{no} was acknowledged as {serial} and is lost"));
                continue;
            };
            self.check(payment.serial == *serial, || format!("{no} is no longer {serial}"));
            self.check(payment.terms == *terms, || format!("{no} has other terms"));
            let reopened =
                payment.state == PaymentState::Success && payment.late == LatePolicy::Reopen;
            let kept = !close_acknowledged || payment.state == PaymentState::Closed || reopened;
            self.check(kept, || format!("{no} was closed, and is {:?}", payment.state));
        }
        for ask in &self.run.asks {
            let Ask { order, terms, acknowledged, .. } = ask;
            let merchant = &self.run.merchants[self.run.orders[*order].merchant].id;
            let found = self
                .refunds
                .iter()
                .filter(|it| it.merchant == *merchant && it.terms.refund_no == terms.refund_no);
            let found: Vec<Refund> = found.cloned().collect();
            let no = &terms.refund_no;
            self.check(found.len() <= 1, || format!("{no} exists {} times", found.len()));
            let Some(serial) = acknowledged else { continue };
            let same = |it: &Refund| it.serial == *serial && it.terms == *terms;
            let kept = found.first().is_some_and(same);
            self.check(kept, || format!("{no} was acknowledged as {serial}; found {found:?}"));
        }
    }

    /// A refund is at the channel once or not at all, and both sides say the same of it.
    fn refunds_on_both_sides(&mut self) {
        let mut there: BTreeMap<String, Vec<(String, RefundView)>> = BTreeMap::new();
        for order in self.channel.clone().into_values() {
            let live = order.refunds.iter().filter(|it| it.status != "CLOSED");
            let sum: i64 = live.map(|it| it.amount_minor).sum();
            self.check(sum <= order.paid_minor.unwrap_or(0), || {
                format!("{} gives {sum} back of {:?}", order.out_trade_no, order.paid_minor)
            });
            for it in order.refunds {
                let list = there.entry(it.out_refund_no.clone()).or_default();
                list.push((order.out_trade_no.clone(), it));
            }
        }
        for refund in self.refunds.clone() {
            let list = there.remove(refund.serial.as_str()).unwrap_or_default();
            let no = &refund.terms.refund_no;
            self.check(list.len() <= 1, || format!("{no} is {} refunds there", list.len()));
            let same = list.iter().all(|(attempt, it)| {
                attempt == refund.attempt.as_str() && it.amount_minor == refund.terms.amount.minor()
            });
            self.check(same, || format!("{no} is another refund there: {list:?}"));
            let status = list.first().map(|it| it.1.status);
            let agrees = match refund.state {
                RefundState::Success => status == Some("SUCCESS"),
                RefundState::Closed => matches!(status, None | Some("CLOSED")),
                RefundState::Abnormal => status == Some("ABNORMAL"),
                // Everything that could go on has gone on.
                RefundState::Processing => false,
            };
            self.check(agrees, || format!("{no} is {:?} with us, {status:?} there", refund.state));
        }
        for number in there.keys() {
            self.findings.push(format!("refund {number} at the channel is none of ours"));
        }
    }

    /// What became of each payment and refund was published.
    fn events(&mut self) {
        let told = lock(&self.run.world).told.clone();
        let payment = |it: &Payment| match it.state {
            PaymentState::Success => Some(format!("{}-succeeded", it.serial)),
            PaymentState::Closed => Some(format!("{}-closed", it.serial)),
            PaymentState::NotPay
            | PaymentState::UserPaying
            | PaymentState::Revoked
            | PaymentState::PayError => None,
        };
        let refund = |it: &Refund| {
            let state = match it.state {
                RefundState::Processing => "processing",
                RefundState::Success => "succeeded",
                RefundState::Closed => "closed",
                RefundState::Abnormal => "abnormal",
            };
            format!("{}-{state}", it.serial)
        };
        let mut want: Vec<String> = self.payments.iter().filter_map(payment).collect();
        want.extend(self.refunds.iter().map(refund));
        for id in want {
            self.check(told.contains(&id), || format!("event {id} was never published"));
        }
    }

    /// Each event is one notification; whoever was willing to hear has heard.
    fn notifications(&mut self) {
        let mut want: BTreeMap<(Serial, Option<Serial>, &str), usize> = BTreeMap::new();
        for it in &self.payments {
            if it.receipt.is_some() && it.terms.notify_url.is_some() {
                want.insert((it.serial, None, word(NotificationEvent::PaymentSucceeded)), 1);
            }
        }
        for it in self.refunds.iter().filter(|it| it.origin == Origin::Merchant) {
            let payment = self.payments.iter().find(|payment| payment.serial == it.payment);
            let url = payment.and_then(|it| it.terms.notify_url.as_ref());
            let event = match it.state {
                RefundState::Success => NotificationEvent::RefundSucceeded,
                RefundState::Closed => NotificationEvent::RefundClosed,
                RefundState::Abnormal => NotificationEvent::RefundAbnormal,
                RefundState::Processing => continue,
            };
            if it.terms.notify_url.is_some() || url.is_some() {
                want.insert((it.payment, Some(it.serial), word(event)), 1);
            }
        }
        let mut have: BTreeMap<(Serial, Option<Serial>, &str), usize> = BTreeMap::new();
        for it in &self.notifications {
            *have.entry((it.payment, it.refund, word(it.event))).or_default() += 1;
        }
        self.check(have == want, || format!("notifications are {have:?}, should be {want:?}"));
        let (heard, patience) = {
            let world = lock(&self.run.world);
            (world.heard.clone(), world.patience.clone())
        };
        for it in self.notifications.clone() {
            let accepted = heard.get(&it.id).is_some_and(|it| it.accepted);
            let state = match patience.get(&it.merchant) {
                Some(Patience::Never) => NotificationState::GivenUp,
                Some(Patience::After(_)) | None => NotificationState::Delivered,
            };
            let fits = it.state == state && accepted == (state == NotificationState::Delivered);
            self.check(fits, || {
                let (event, is) = (it.event, it.state);
                format!("{event:?} {} is {is:?}, heard {:?}", it.id, heard.get(&it.id))
            });
        }
        for id in heard.keys() {
            let known = self.notifications.iter().any(|it| it.id == *id);
            self.check(known, || format!("a merchant heard {id}, which does not exist"));
        }
    }
}

fn word(event: NotificationEvent) -> &'static str {
    match event {
        NotificationEvent::PaymentSucceeded => "paid",
        NotificationEvent::RefundSucceeded => "refunded",
        NotificationEvent::RefundClosed => "refund closed",
        NotificationEvent::RefundAbnormal => "refund abnormal",
    }
}
