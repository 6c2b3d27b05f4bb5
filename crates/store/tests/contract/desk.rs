//! A merchant's desk: plain orders, payments and refunds with the postings they cause.

use app::{
    Commit, Intent, IntentChange, IntentKind, Merchant, Notification, NotificationEvent,
    NotificationState, Put,
};
use kernel::{
    BasisPoints, Currency, MerchantId, Money, Serial, SerialGenerator, SerialKind, Timestamp, Zone,
};
use ledger::{Event, Journal, Posting, RefundMoney, Source};
use payments::{
    Attempt, AttemptState, Evidence, LatePolicy, Mode, Payment, PaymentState, Receipt, Refund,
    RefundTerms, Terms, TradeProduct,
};
use std::sync::Mutex;

pub const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

pub fn cny(minor: i64) -> Money {
    Money::new(minor, Currency::Cny)
}

pub fn put<T>(value: T, expected: u32) -> Put<T> {
    Put { value, expected }
}

pub struct Desk {
    pub merchant: MerchantId,
    serials: Mutex<SerialGenerator>,
}

impl Desk {
    /// - Input: `node` keeps the serials of two desks apart.
    pub fn new(id: &str, node: u16) -> Desk {
        let serials = Mutex::new(SerialGenerator::new(node, Zone::shanghai()));
        Desk { merchant: MerchantId::parse(id).unwrap(), serials }
    }

    pub fn serial(&self, kind: SerialKind) -> Serial {
        self.serials.lock().unwrap().next(NOW, kind)
    }

    pub fn card(&self) -> Merchant {
        Merchant {
            id: self.merchant.clone(),
            name: "茶馆".into(),
            appids: vec!["wx1".into()],
            fee_rate: BasisPoints::new(60).unwrap(),
            mode: Mode::Lazy,
            late: LatePolicy::Refund,
            certificate_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            certificate_serial: "5157F09EFDC096DE15EBE81A47057A72".into(),
            sealed_apiv3_key: "v1.00ff".into(),
            active: true,
        }
    }

    /// An unpaid order with one attempt.
    pub fn order(&self, order_no: &str, minor: i64) -> Payment {
        let attempt = Attempt {
            serial: self.serial(SerialKind::Attempt),
            channel: "wechat".into(),
            product: TradeProduct::Native,
            amount: cny(minor),
            cost_rate: BasisPoints::new(20).unwrap(),
            state: AttemptState::Waiting,
            started: NOW,
            prepay: None,
            receipt: None,
            note: None,
        };
        Payment {
            serial: self.serial(SerialKind::Payment),
            merchant: self.merchant.clone(),
            terms: Terms {
                order_no: order_no.into(),
                appid: "wx1".into(),
                product: TradeProduct::Native,
                amount: cny(minor),
                description: "龙井 50 g".into(),
                attach: None,
                notify_url: Some("https://merchant.example/notify".into()),
                time_expire: None,
                payer: None,
                payer_ip: None,
                h5_type: None,
                device_id: None,
                return_url: None,
                extras: None,
            },
            mode: Mode::Lazy,
            verifies_with: None,
            trace: None,
            fee_rate: BasisPoints::new(60).unwrap(),
            late: LatePolicy::Refund,
            state: PaymentState::NotPay,
            created: NOW,
            expires: NOW.plus_s(7200),
            attempts: vec![attempt],
            receipt: None,
            refunded: cny(0),
            fee_returned: cny(0),
            cost_returned: cny(0),
            refunds: 0,
            unexpected: vec![],
            contradictions: vec![],
        }
    }

    /// The order once it is paid, and the journal of that.
    pub fn paid(&self, order: &Payment) -> (Payment, Journal) {
        let receipt = Receipt {
            attempt: order.attempts[0].serial,
            amount: order.terms.amount,
            transaction: format!("42{}", order.serial),
            payer: Some("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into()),
            bank: Some("OTHERS".into()),
            at: NOW,
        };
        let evidence = Evidence::Paid(receipt.clone());
        let paid = order.record(receipt.attempt, &evidence).unwrap().payment;
        let postings = ledger::paid(&ledger::Paid {
            merchant: &paid.merchant,
            channel: "wechat",
            gross: receipt.amount,
            fee: paid.fee(),
            cost: paid.cost(),
        });
        let journal = self.journal(&paid, receipt.attempt, Event::Paid, postings);
        (paid, journal)
    }

    pub fn journal(
        &self,
        payment: &Payment,
        subject: Serial,
        event: Event,
        postings: Vec<Posting>,
    ) -> Journal {
        Journal {
            serial: self.serial(SerialKind::Journal),
            merchant: self.merchant.clone(),
            payment: payment.serial,
            subject,
            event,
            at: NOW,
            postings,
        }
    }

    pub fn notification(&self, payment: &Payment) -> Notification {
        Notification {
            id: self.serial(SerialKind::Notification),
            merchant: self.merchant.clone(),
            payment: payment.serial,
            refund: None,
            event: NotificationEvent::PaymentSucceeded,
            url: "https://merchant.example/notify".into(),
            created: NOW,
            state: NotificationState::Pending,
            tries: 0,
            ladder_from: 0,
        }
    }

    pub fn intent(&self, kind: IntentKind, subject: Serial, due: Timestamp) -> Intent {
        let merchant = self.merchant.clone();
        Intent { merchant, kind, subject, due, tries: 0, holder: None }
    }

    pub fn finish(&self, kind: IntentKind, subject: Serial) -> IntentChange {
        IntentChange::Finish { merchant: self.merchant.clone(), kind, subject }
    }

    /// The commit that places an order.
    pub fn place(&self, order: &Payment) -> Commit {
        let heal = self.intent(IntentKind::Heal, order.serial, order.expires);
        Commit {
            payments: vec![put(order.clone(), 0)],
            intents: vec![IntentChange::Schedule(heal)],
            ..Commit::default()
        }
    }

    /// The commit that pays an order of version `expected`, or places and pays it if that is 0.
    pub fn pay(&self, order: &Payment, expected: u32) -> Commit {
        let (payment, journal) = self.paid(order);
        let notification = self.notification(&payment);
        let tell = self.intent(IntentKind::Notify, notification.id, NOW);
        Commit {
            intents: vec![
                self.finish(IntentKind::Heal, payment.serial),
                IntentChange::Schedule(tell),
            ],
            notifications: vec![put(notification, 0)],
            payments: vec![put(payment, expected)],
            journals: vec![journal],
            ..Commit::default()
        }
    }

    /// The commit that accepts a refund of a paid order of version `expected`.
    pub fn refund(&self, paid: &Payment, expected: u32, refund_no: &str, minor: i64) -> Commit {
        let terms = RefundTerms {
            refund_no: refund_no.into(),
            amount: cny(minor),
            total: paid.terms.amount,
            reason: Some("凉了".into()),
            notify_url: None,
            extras: None,
        };
        let serial = self.serial(SerialKind::Refund);
        let (after, refund) = paid.accept_refund(serial, terms, 0, NOW).unwrap();
        let postings = ledger::refund_accepted(&money_of(&refund));
        let send = self.intent(IntentKind::Refund, serial, NOW);
        Commit {
            journals: vec![self.journal(paid, serial, Event::RefundAccepted, postings)],
            payments: vec![put(after, expected)],
            refunds: vec![put(refund, 0)],
            intents: vec![IntentChange::Schedule(send)],
            ..Commit::default()
        }
    }
}

fn money_of(refund: &Refund) -> RefundMoney<'_> {
    RefundMoney {
        merchant: &refund.merchant,
        channel: "wechat",
        amount: refund.terms.amount,
        fee_back: refund.fee_back,
        cost_back: refund.cost_back,
        source: Source::Merchant { from_available_minor: refund.from_available_minor },
    }
}
