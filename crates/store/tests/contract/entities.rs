//! Any entity with any of its fields filled: what is written is what is read.

use crate::desk::{NOW, put};
use crate::dump::{FROM, UNTIL};
use crate::run;
use app::{
    Commit, Intent, IntentChange, IntentKind, Merchant, Notification, NotificationEvent,
    NotificationState, Store, Try, Versioned,
};
use kernel::{
    BasisPoints, Currency, MerchantId, Money, Serial, SerialGenerator, SerialKind, Timestamp, Zone,
};
use payments::{
    Attempt, AttemptState, LatePolicy, Mode, Origin, Payment, PaymentState, Prepay, Receipt,
    Refund, RefundState, RefundTerms, Terms, TradeProduct, Unexpected, UnexpectedCause,
    UnexpectedState,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::slice::from_ref;

/// Any text, control characters, quotes and wide characters included.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        prop::collection::vec(any::<char>(), 0..24).prop_map(|it| it.into_iter().collect()),
        "[ -~\u{4e00}-\u{4e20}'\"\\\\]{0,24}",
    ]
    .boxed()
}

fn maybe(some: impl Strategy<Value = String>) -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.7, some)
}

fn at() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000_000).prop_map(Timestamp::from_ms)
}

/// A serial of any time, so that its order says nothing.
fn serial(kind: SerialKind) -> impl Strategy<Value = Serial> {
    (at(), 0u16..1000)
        .prop_map(move |(at, node)| SerialGenerator::new(node, Zone::shanghai()).next(at, kind))
}

fn merchant_id() -> impl Strategy<Value = MerchantId> {
    "[0-9A-Za-z]{1,32}".prop_map(|it| MerchantId::parse(&it).unwrap())
}

fn currency() -> impl Strategy<Value = Currency> {
    select(vec![Currency::Cny, Currency::Usd, Currency::Jpy])
}

fn money() -> impl Strategy<Value = Money> {
    (any::<i64>(), currency()).prop_map(|(minor, currency)| Money::new(minor, currency))
}

fn rate() -> impl Strategy<Value = BasisPoints> {
    (0u16..=10_000).prop_map(|it| BasisPoints::new(it).unwrap())
}

fn product() -> impl Strategy<Value = TradeProduct> {
    use TradeProduct::{App, Cashier, H5, Jsapi, Native};
    select(vec![Native, Jsapi, App, H5, Cashier])
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Eager, Mode::Lazy])
}

fn late() -> impl Strategy<Value = LatePolicy> {
    select(vec![LatePolicy::Reopen, LatePolicy::Refund])
}

fn merchant() -> BoxedStrategy<Merchant> {
    let texts = (text(), text(), text(), text());
    let rules = (prop::collection::vec(text(), 0..3), rate(), mode(), late(), any::<bool>());
    (merchant_id(), texts, rules)
        .prop_map(|(id, (name, pem, serial, key), (appids, fee_rate, mode, late, active))| {
            Merchant {
                id,
                name,
                appids,
                fee_rate,
                mode,
                late,
                certificate_pem: pem,
                certificate_serial: serial,
                sealed_apiv3_key: key,
                active,
            }
        })
        .boxed()
}

fn terms() -> BoxedStrategy<Terms> {
    let fixed = ("[0-9A-Za-z_*@|-]{1,32}", text(), product(), money(), text());
    let optional = prop::array::uniform9(maybe(text()));
    (fixed, optional, prop::option::of(at()))
        .prop_map(|((order_no, appid, product, amount, description), optional, time_expire)| {
            let [attach, notify_url, payer, payer_ip, h5_type, device_id, return_url, extras, _] =
                optional;
            Terms {
                order_no,
                appid,
                product,
                amount,
                description,
                attach,
                notify_url,
                time_expire,
                payer,
                payer_ip,
                h5_type,
                device_id,
                return_url,
                extras,
            }
        })
        .boxed()
}

fn attempt() -> BoxedStrategy<Attempt> {
    use AttemptState as S;
    let states =
        vec![S::Sent, S::InDoubt, S::Waiting, S::Paying, S::Succeeded, S::Failed, S::Closed];
    let facts = (serial(SerialKind::Attempt), text(), product(), money(), rate(), select(states));
    let prepay = prop::option::of(
        prop::array::uniform3(maybe(text())).prop_map(|[code_url, h5_url, prepay_id]| Prepay {
            code_url,
            h5_url,
            prepay_id,
        }),
    );
    let receipt = prop::option::of((money(), text(), maybe(text()), maybe(text()), at()));
    (facts, at(), prepay, receipt, maybe(text()))
        .prop_map(
            |(
                (serial, channel, product, amount, cost_rate, state),
                started,
                prepay,
                receipt,
                note,
            )| {
                Attempt {
                    serial,
                    channel,
                    product,
                    amount,
                    cost_rate,
                    state,
                    started,
                    prepay,
                    receipt: receipt.map(|(amount, transaction, payer, bank, at)| Receipt {
                        attempt: serial,
                        amount,
                        transaction,
                        payer,
                        bank,
                        at,
                    }),
                    note,
                }
            },
        )
        .boxed()
}

fn unexpected() -> BoxedStrategy<Unexpected> {
    use UnexpectedCause::{LateSuccess, SecondSuccess, WrongAmount, WrongCurrency};
    let cause = select(vec![SecondSuccess, LateSuccess, WrongAmount, WrongCurrency]);
    let state = select(vec![UnexpectedState::Held, UnexpectedState::Refunding]);
    (serial(SerialKind::Attempt), cause, state, money(), at())
        .prop_map(|(attempt, cause, state, amount, at)| Unexpected {
            attempt,
            cause,
            state,
            amount,
            at,
        })
        .boxed()
}

fn payment_state() -> impl Strategy<Value = PaymentState> {
    use PaymentState::{Closed, NotPay, PayError, Revoked, Success, UserPaying};
    select(vec![NotPay, UserPaying, Success, Closed, Revoked, PayError])
}

fn payment(merchant: MerchantId) -> BoxedStrategy<Payment> {
    let rules = (mode(), rate(), late(), payment_state(), at(), at());
    let sums = (any::<[i64; 3]>(), any::<u16>(), maybe(text()), maybe(text()));
    let attempts = prop::collection::vec(attempt(), 0..4);
    let odd = (prop::collection::vec(unexpected(), 0..3), prop::collection::vec(text(), 0..3));
    let whole = (serial(SerialKind::Payment), terms(), rules, attempts, sums, odd);
    whole
        .prop_map(
            move |(serial, terms, rules, attempts, (sums, refunds, verifies_with, trace), odd)| {
                let (mode, fee_rate, late, state, created, expires) = rules;
                let same = |minor| Money::new(minor, terms.amount.currency());
                let [refunded, fee_returned, cost_returned] = sums.map(same);
                Payment {
                    serial,
                    merchant: merchant.clone(),
                    mode,
                    verifies_with,
                    trace,
                    fee_rate,
                    late,
                    state,
                    created,
                    expires,
                    receipt: attempts.iter().find_map(|it| it.receipt.clone()),
                    attempts,
                    refunded,
                    fee_returned,
                    cost_returned,
                    refunds,
                    unexpected: odd.0,
                    contradictions: odd.1,
                    terms,
                }
            },
        )
        .boxed()
}

fn refund(payment: Payment) -> BoxedStrategy<Refund> {
    use RefundState::{Abnormal, Closed, Processing, Success};
    let origin = select(vec![Origin::Merchant, Origin::Automatic]);
    let state = select(vec![Processing, Success, Closed, Abnormal]);
    let terms = ("[0-9A-Za-z_*@|-]{1,64}", money(), money(), prop::array::uniform3(maybe(text())));
    let numbers = (serial(SerialKind::Refund), serial(SerialKind::Attempt), any::<[i64; 3]>());
    let last = (at(), prop::option::of(at()), maybe(text()), maybe(text()));
    (numbers, terms, origin, state, last)
        .prop_map(move |(numbers, terms, origin, state, last)| {
            let (refund_no, amount, total, [reason, notify_url, extras]) = terms;
            let (serial, attempt, [fee_back, cost_back, from_available_minor]) = numbers;
            let (created, done, account, note) = last;
            Refund {
                serial,
                merchant: payment.merchant.clone(),
                payment: payment.serial,
                attempt,
                terms: RefundTerms { refund_no, amount, total, reason, notify_url, extras },
                origin,
                state,
                fee_back: Money::new(fee_back, amount.currency()),
                cost_back: Money::new(cost_back, amount.currency()),
                from_available_minor,
                created,
                done,
                account,
                note,
            }
        })
        .boxed()
}

fn notification(payment: Payment) -> BoxedStrategy<Notification> {
    use NotificationEvent::{PaymentSucceeded, RefundAbnormal, RefundClosed, RefundSucceeded};
    use NotificationState::{Delivered, GivenUp, Pending};
    let event = select(vec![PaymentSucceeded, RefundSucceeded, RefundClosed, RefundAbnormal]);
    let state = select(vec![Pending, Delivered, GivenUp]);
    let numbers = (serial(SerialKind::Notification), prop::option::of(serial(SerialKind::Refund)));
    (numbers, event, state, text(), at(), any::<[u32; 2]>())
        .prop_map(move |((id, refund), event, state, url, created, [tries, ladder_from])| {
            Notification {
                id,
                merchant: payment.merchant.clone(),
                payment: payment.serial,
                refund,
                event,
                url,
                created,
                state,
                tries,
                ladder_from,
            }
        })
        .boxed()
}

fn tries(notification: Notification) -> BoxedStrategy<Vec<Try>> {
    let duration = 0..=u64::try_from(i64::MAX).unwrap();
    // Where NUL cannot be kept, its place is: what a merchant's server said is for people.
    let said = || text().prop_map(|it| it.replace('\0', "\u{fffd}"));
    let one = (at(), any::<Option<u16>>(), duration, said(), maybe(said()));
    prop::collection::vec(one, 0..4)
        .prop_map(move |list| {
            let numbered = (1..).zip(list);
            numbered
                .map(|(number, (at, status, duration_ms, body_head, error))| Try {
                    merchant: notification.merchant.clone(),
                    notification: notification.id,
                    number,
                    at,
                    status,
                    duration_ms,
                    body_head,
                    error,
                })
                .collect()
        })
        .boxed()
}

fn intent(merchant: MerchantId) -> BoxedStrategy<Intent> {
    let kind =
        select(vec![IntentKind::Heal, IntentKind::Refund, IntentKind::Notify, IntentKind::Publish]);
    (kind, serial(SerialKind::Intent), at(), any::<u32>())
        .prop_map(move |(kind, subject, due, tries)| Intent {
            merchant: merchant.clone(),
            kind,
            subject,
            due,
            tries,
            holder: None,
        })
        .boxed()
}

/// One of everything, all of one merchant.
#[derive(Clone, Debug)]
struct Everything {
    merchant: Merchant,
    payment: Payment,
    refund: Refund,
    notification: Notification,
    tries: Vec<Try>,
    intent: Intent,
}

fn everything(id: MerchantId) -> BoxedStrategy<Everything> {
    let known = id.clone();
    let merchant = merchant().prop_map(move |it| Merchant { id: known.clone(), ..it });
    let family = payment(id.clone()).prop_flat_map(|payment| {
        let told = notification(payment.clone()).prop_flat_map(|it| (Just(it.clone()), tries(it)));
        (refund(payment.clone()), told, Just(payment))
    });
    (merchant, family, intent(id))
        .prop_map(|(merchant, family, intent)| {
            let (refund, (notification, tries), payment) = family;
            Everything { merchant, payment, refund, notification, tries, intent }
        })
        .boxed()
}

impl Everything {
    fn commit(&self, expected: u32) -> Commit {
        Commit {
            merchants: vec![put(self.merchant.clone(), expected)],
            payments: vec![put(self.payment.clone(), expected)],
            refunds: vec![put(self.refund.clone(), expected)],
            notifications: vec![put(self.notification.clone(), expected)],
            tries: self.tries.clone(),
            journals: vec![],
            intents: vec![IntentChange::Schedule(self.intent.clone())],
        }
    }

    /// What is written later: everything may change but names, amounts and the day of creation.
    fn changed_to(&self, other: Everything) -> Everything {
        let old = self.clone();
        let tries =
            other.tries.iter().map(|it| Try { notification: old.notification.id, ..it.clone() });
        let same = |money: Money| Money::new(money.minor(), old.payment.terms.amount.currency());
        Everything {
            tries: tries.collect(),
            merchant: other.merchant,
            payment: Payment {
                serial: old.payment.serial,
                created: old.payment.created,
                refunded: same(other.payment.refunded),
                fee_returned: same(other.payment.fee_returned),
                cost_returned: same(other.payment.cost_returned),
                terms: Terms {
                    order_no: old.payment.terms.order_no,
                    amount: old.payment.terms.amount,
                    ..other.payment.terms
                },
                ..other.payment
            },
            refund: Refund {
                serial: old.refund.serial,
                payment: old.refund.payment,
                created: old.refund.created,
                fee_back: old.refund.fee_back,
                cost_back: old.refund.cost_back,
                terms: RefundTerms {
                    refund_no: old.refund.terms.refund_no,
                    amount: old.refund.terms.amount,
                    ..other.refund.terms
                },
                ..other.refund
            },
            notification: Notification {
                id: old.notification.id,
                payment: old.notification.payment,
                ..other.notification
            },
            intent: Intent { kind: old.intent.kind, subject: old.intent.subject, ..other.intent },
        }
    }

    /// Compares with what every reading function of the port says.
    async fn check(&self, store: &impl Store, version: u32) {
        let Everything { merchant, payment, refund, notification, .. } = self;
        let id = &merchant.id;
        fn seen<T: Clone>(value: &T, version: u32) -> Option<Versioned<T>> {
            Some(Versioned { value: value.clone(), version })
        }
        assert_eq!(store.merchant(id).await.unwrap(), seen(merchant, version));
        assert_eq!(store.merchants().await.unwrap(), from_ref(merchant));
        let order_no = &payment.terms.order_no;
        assert_eq!(store.payment(id, payment.serial).await.unwrap(), seen(payment, version));
        assert_eq!(store.payment_by_order(id, order_no).await.unwrap(), seen(payment, version));
        assert_eq!(store.payments_after(None, 9).await.unwrap(), from_ref(payment));
        let paid: Vec<Payment> = payment.receipt.iter().map(|_| payment.clone()).collect();
        assert_eq!(store.paid_between(id, FROM, UNTIL).await.unwrap(), paid);
        let refund_no = &refund.terms.refund_no;
        assert_eq!(store.refund(id, refund.serial).await.unwrap(), seen(refund, version));
        assert_eq!(store.refund_by_no(id, refund_no).await.unwrap(), seen(refund, version));
        assert_eq!(store.refunds_of(id, payment.serial).await.unwrap(), from_ref(refund));
        assert_eq!(store.refunds_between(id, FROM, UNTIL).await.unwrap(), from_ref(refund));
        let told = store.notification(id, notification.id).await.unwrap();
        assert_eq!(told, seen(notification, version));
        let of = (Some(payment.serial), Some(notification.state));
        let listed = store.notifications(id, of.0, of.1, 9).await.unwrap();
        assert_eq!(listed, from_ref(notification));
        assert_eq!(store.due(UNTIL, 9).await.unwrap(), from_ref(&self.intent));
        assert_eq!(store.next_due().await.unwrap(), Some(self.intent.due));
    }
}

pub fn everything_reads_back<S: Store>(make: impl Fn() -> S) {
    let any = merchant_id().prop_flat_map(|id| (everything(id.clone()), everything(id)));
    let mut runner =
        TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&any, |(first, other)| {
        let store = make();
        let second = first.changed_to(other);
        run(async {
            store.commit(first.commit(0)).await.unwrap();
            first.check(&store, 1).await;
            let id = (&first.merchant.id, first.notification.id);
            assert_eq!(store.tries_of(id.0, id.1).await.unwrap(), first.tries);
            store.commit(second.commit(1)).await.unwrap();
            second.check(&store, 2).await;
            // A try of the same number replaces the one before.
            let kept = first.tries.iter().skip(second.tries.len());
            let tries: Vec<Try> = second.tries.iter().chain(kept).cloned().collect();
            assert_eq!(store.tries_of(id.0, id.1).await.unwrap(), tries);
            // Another merchant sees nothing of it.
            let other = MerchantId::parse("another0merchant").unwrap();
            assert_eq!(store.payment(&other, first.payment.serial).await.unwrap(), None);
            assert_eq!(store.refund(&other, first.refund.serial).await.unwrap(), None);
            assert_eq!(store.notifications(&other, None, None, 9).await.unwrap(), []);
            assert_eq!(store.balances().await.unwrap(), []);
            assert!(store.due(NOW, 0).await.unwrap().is_empty());
        });
        Ok(())
    });
    outcome.unwrap();
}
