//! The platform's ports, as unreliable as the world: storage, channels, merchants' servers, the bus.

use super::accounts::connectors;
use super::pause::{Shared, lock, pause};
use super::sabotage::Sabotage;
use super::world::{Heard, Late, Patience, World, short};
use crate::wechat::{SimAnswer, SimRequest};
use app::{
    BusinessEvent, Commit, CommitError, Courier, Delivery, EventName, Intent, IntentChange,
    IntentKind, JournalRow, Merchant, Node, Notification, NotificationState, Provider, Publisher,
    Publishing, Pulse, Store, StoreError, Subject, Try, Unpublished, Versioned,
};
use channel::{
    Answer, Callback, CallbackError, Channel, ChannelId, Decline, HttpMessage, HttpRequest, Moment,
    Operation,
};
use channels::wechat::Wechat;
use kernel::{MerchantId, Money, Serial, Timestamp};
use ledger::{Account, Balance};
use payments::{Payment, PaymentState, Refund, RefundState};
use store::MemoryStore;

/// The real store; what goes wrong goes wrong around it.
pub(super) struct WildStore {
    pub(super) inner: MemoryStore,
    pub(super) world: Shared,
}

type Reply<T> = Result<T, StoreError>;

impl WildStore {
    async fn readable(&self) -> Reply<()> {
        pause(&self.world).await;
        match lock(&self.world).strikes(|it| it.read_fails) {
            true => Err(StoreError("simulated".into())),
            false => Ok(()),
        }
    }
}

fn broken(commit: &mut Commit, sabotage: Sabotage) {
    let forget = |commit: &mut Commit, kind| {
        let wanted = |it: &IntentChange| match it {
            IntentChange::Schedule(intent) => intent.kind != kind,
            IntentChange::Finish { .. } | IntentChange::Settle { .. } => true,
        };
        commit.intents.retain(wanted);
    };
    match sabotage {
        Sabotage::ForgetRefundIntents => forget(commit, IntentKind::Refund),
        Sabotage::ForgetHealIntents => forget(commit, IntentKind::Heal),
        Sabotage::ForgetEvents => forget(commit, IntentKind::Publish),
        Sabotage::ForgetPostings => commit.journals.iter_mut().for_each(|it| {
            it.postings.pop();
        }),
        Sabotage::None
        | Sabotage::DoubtIsDecline
        | Sabotage::DoubtIsNotFound
        | Sabotage::ShortPayment
        | Sabotage::UnheardIsDelivered
        | Sabotage::NewNotificationIds => {}
    }
}

impl Store for WildStore {
    async fn commit(&self, mut commit: Commit) -> Result<(), CommitError> {
        pause(&self.world).await;
        let (refused, unknown) = {
            let mut world = lock(&self.world);
            broken(&mut commit, world.sabotage);
            (world.strikes(|it| it.commit_refused), world.strikes(|it| it.commit_unknown))
        };
        if refused {
            lock(&self.world).note(|_| "   commit refused".into());
            return Err(CommitError::Refused("simulated".into()));
        }
        let result = self.inner.commit(commit.clone()).await;
        {
            let mut world = lock(&self.world);
            if result.is_ok() {
                let wrong = world.watch.committed(&commit);
                wrong.into_iter().for_each(|it| world.find(it));
            }
            world.note(|_| format!("   commit {}: {}", words(&commit), verdict(&result, unknown)));
        }
        pause(&self.world).await;
        match unknown {
            true => Err(CommitError::Unknown("simulated".into())),
            false => result,
        }
    }

    async fn merchant(&self, id: &MerchantId) -> Reply<Option<Versioned<Merchant>>> {
        self.readable().await?;
        self.inner.merchant(id).await
    }

    async fn merchants(&self) -> Reply<Vec<Merchant>> {
        self.readable().await?;
        self.inner.merchants().await
    }

    async fn payment(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.readable().await?;
        self.inner.payment(merchant, serial).await
    }

    async fn payment_by_order(
        &self,
        merchant: &MerchantId,
        order_no: &str,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.readable().await?;
        self.inner.payment_by_order(merchant, order_no).await
    }

    async fn payments_after(
        &self,
        after: Option<(MerchantId, Serial)>,
        limit: u32,
    ) -> Reply<Vec<Payment>> {
        self.readable().await?;
        self.inner.payments_after(after, limit).await
    }

    async fn paid_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Payment>> {
        self.readable().await?;
        self.inner.paid_between(merchant, from, until).await
    }

    async fn refund(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.readable().await?;
        self.inner.refund(merchant, serial).await
    }

    async fn refund_by_no(
        &self,
        merchant: &MerchantId,
        refund_no: &str,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.readable().await?;
        self.inner.refund_by_no(merchant, refund_no).await
    }

    async fn refunds_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<Refund>> {
        self.readable().await?;
        self.inner.refunds_of(merchant, payment).await
    }

    async fn refunds_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Refund>> {
        self.readable().await?;
        self.inner.refunds_between(merchant, from, until).await
    }

    async fn notification(
        &self,
        merchant: &MerchantId,
        id: Serial,
    ) -> Reply<Option<Versioned<Notification>>> {
        self.readable().await?;
        self.inner.notification(merchant, id).await
    }

    async fn notifications(
        &self,
        merchant: &MerchantId,
        payment: Option<Serial>,
        state: Option<NotificationState>,
        limit: u32,
    ) -> Reply<Vec<Notification>> {
        self.readable().await?;
        self.inner.notifications(merchant, payment, state, limit).await
    }

    async fn tries_of(&self, merchant: &MerchantId, notification: Serial) -> Reply<Vec<Try>> {
        self.readable().await?;
        self.inner.tries_of(merchant, notification).await
    }

    async fn enroll(
        &self,
        wanted: Option<u16>,
        holder: &str,
        lease_ms: i64,
    ) -> Reply<Option<Node>> {
        self.readable().await?;
        self.inner.enroll(wanted, holder, lease_ms).await
    }

    async fn renew(&self, node: &Node, lease_ms: i64) -> Reply<bool> {
        self.readable().await?;
        self.inner.renew(node, lease_ms).await
    }

    async fn retire(&self, node: &Node) -> Reply<()> {
        self.readable().await?;
        self.inner.retire(node).await
    }

    async fn claim(&self, node: &Node, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
        self.readable().await?;
        self.inner.claim(node, now, limit).await
    }

    async fn claimed(&self, node: &Node, now: Timestamp) -> Reply<Vec<Intent>> {
        self.readable().await?;
        self.inner.claimed(node, now).await
    }

    async fn pulse(&self, now: Timestamp) -> Reply<Pulse> {
        self.readable().await?;
        self.inner.pulse(now).await
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
        self.readable().await?;
        self.inner.due(now, limit).await
    }

    async fn next_due(&self) -> Reply<Option<Timestamp>> {
        self.readable().await?;
        self.inner.next_due().await
    }

    async fn balance(&self, account: &Account) -> Reply<Balance> {
        self.readable().await?;
        self.inner.balance(account).await
    }

    async fn balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.readable().await?;
        self.inner.balances().await
    }

    async fn postings_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<JournalRow>> {
        self.readable().await?;
        self.inner.postings_of(merchant, payment).await
    }

    async fn postings_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<JournalRow>> {
        self.readable().await?;
        self.inner.postings_between(merchant, from, until).await
    }

    async fn recomputed_balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.readable().await?;
        self.inner.recomputed_balances().await
    }
}

/// A commit in a line of the trace.
fn words(commit: &Commit) -> String {
    let mut words = Vec::new();
    for put in &commit.payments {
        let it = &put.value;
        let attempts: Vec<String> =
            it.attempts.iter().map(|it| format!("{:?}", it.state)).collect();
        let (no, state, attempts) = (&it.terms.order_no, it.state, attempts.join(","));
        words.push(format!("{no} v{} {state:?} [{attempts}]", put.expected + 1));
    }
    for put in &commit.refunds {
        let it = &put.value;
        words.push(format!("{} v{} {:?}", short(&it.terms.refund_no), put.expected + 1, it.state));
    }
    for put in &commit.notifications {
        let it = &put.value;
        words.push(format!("notify {:?} {:?} after {}", it.event, it.state, it.tries));
    }
    words.extend(commit.journals.iter().map(|it| format!("book {}", it.event.name())));
    words.extend(commit.intents.iter().map(|it| match it {
        IntentChange::Schedule(it) => format!("+{:?}", it.kind),
        IntentChange::Finish { kind, .. } => format!("-{kind:?}"),
        IntentChange::Settle { claimed, next: None } => format!("~-{:?}", claimed.kind),
        IntentChange::Settle { claimed, next: Some((due, _)) } => {
            format!("~{:?} in {} s", claimed.kind, due.ms_since(claimed.due) / 1000)
        }
    }));
    words.join("; ")
}

fn verdict(result: &Result<(), CommitError>, unknown: bool) -> String {
    let lost = if unknown { ", answer lost" } else { "" };
    match result {
        Ok(()) => format!("done{lost}"),
        Err(error) => format!("{error}{lost}"),
    }
}

/// The real connectors, with a bad line between them and the simulated channel.
pub(super) struct WildProvider {
    pub(super) world: Shared,
    connectors: Vec<Wechat>,
}

impl WildProvider {
    pub(super) fn new(world: Shared) -> WildProvider {
        WildProvider { world, connectors: connectors() }
    }

    fn connector(&self, channel: &ChannelId) -> Option<&Wechat> {
        self.connectors.iter().find(|it| it.id() == channel)
    }

    /// What a callback says, as the connector reads it.
    pub(super) fn callback(
        &self,
        channel: &ChannelId,
        message: &HttpMessage,
        now: Timestamp,
    ) -> Option<Result<Callback, CallbackError>> {
        Some(self.connector(channel)?.callback(message, now))
    }

    fn moment(&self) -> Moment {
        let mut world = lock(&self.world);
        Moment { now: world.now, nonce: world.dice.nonce() }
    }

    async fn exchange(&self, wechat: &Wechat, operation: &Operation) -> Answer {
        pause(&self.world).await;
        let request = match wechat.encode(operation, &self.moment()) {
            Ok(request) => sim_request(request),
            Err(error) => {
                let (code, message) = ("CANNOT_ENCODE".into(), error.to_string());
                return Answer::Declined(Decline { code, message, temporary: false });
            }
        };
        let answer = self.send(request, operation);
        {
            let mut world = lock(&self.world);
            let way_ms = world.dice.between(1, 20);
            world.advance(way_ms);
        }
        pause(&self.world).await;
        let Some(mut message) = answer else {
            return Answer::InDoubt { why: "no answer".into() };
        };
        let good = (200..300).contains(&message.status);
        if good && lock(&self.world).strikes(|it| it.answer_corrupted) {
            corrupt(&self.world, &mut message);
        }
        wechat.decode(operation, &message, &self.moment())
    }

    /// What comes back, if anything does.
    fn send(&self, request: SimRequest, operation: &Operation) -> Option<HttpMessage> {
        let creates = match operation {
            Operation::Create(it) => Some(it.attempt),
            Operation::Query { .. }
            | Operation::Close { .. }
            | Operation::Refund(_)
            | Operation::QueryRefund { .. }
            | Operation::Bill { .. }
            | Operation::Download { .. }
            | Operation::Keys => None,
        };
        let mut world = lock(&self.world);
        if world.strikes(|it| it.request_lost) {
            return None;
        }
        if !operation.is_read() && world.strikes(|it| it.request_late) {
            // Within the five minutes for which the channel takes the request for fresh.
            let due = world.now.plus_ms(world.dice.between(1, 240_000));
            world.late.push(Late { due, request, creates });
            return None;
        }
        let answer = world.channel_hears(&request, creates);
        if answer.drop || world.strikes(|it| it.answer_lost) {
            return None;
        }
        Some(http_message(answer))
    }
}

fn sim_request(request: HttpRequest) -> SimRequest {
    let after_host = request.url.splitn(4, '/').nth(3).unwrap_or("");
    let headers = request.headers.into_iter();
    let mut headers: Vec<(String, String)> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    headers.push(("user-agent".into(), "simulation".into()));
    SimRequest {
        method: request.method.into(),
        path_and_query: format!("/{after_host}"),
        headers,
        body: request.body,
    }
}

fn http_message(answer: SimAnswer) -> HttpMessage {
    let headers = answer.headers.into_iter().map(|(name, value)| (name.to_owned(), value));
    HttpMessage { status: answer.status, headers: headers.collect(), body: answer.body }
}

/// Flips a bit, cuts the end off or loses a header.
pub(super) fn corrupt(world: &Shared, message: &mut HttpMessage) {
    let mut world = lock(world);
    let how = world.dice.below(3);
    if how == 0 && !message.body.is_empty() {
        let at = world.dice.below(message.body.len());
        message.body[at] ^= 1;
    } else if how == 1 && !message.body.is_empty() {
        let len = world.dice.below(message.body.len());
        message.body.truncate(len);
    } else {
        message.headers.retain(|it| it.0 != "wechatpay-signature");
    }
}

impl Provider for WildProvider {
    async fn ask(&self, channel: &ChannelId, operation: &Operation) -> Answer {
        let answer = match self.connector(channel) {
            Some(wechat) => self.exchange(wechat, operation).await,
            None => Answer::InDoubt { why: format!("no channel {channel}") },
        };
        let mut world = lock(&self.world);
        let answer = bent(answer, world.sabotage);
        world.note(|_| format!("   {}: {}", asked(operation), said(&answer)));
        answer
    }

    fn payee(&self, channel: &ChannelId) -> Option<String> {
        self.connector(channel).map(|it| it.payee().to_owned())
    }
}

fn bent(answer: Answer, sabotage: Sabotage) -> Answer {
    match (sabotage, answer) {
        (Sabotage::DoubtIsDecline, Answer::InDoubt { why }) => {
            Answer::Declined(Decline { code: "BENT".into(), message: why, temporary: false })
        }
        (Sabotage::DoubtIsNotFound, Answer::InDoubt { .. }) => Answer::NotFound,
        (Sabotage::ShortPayment, Answer::Payment(mut facts)) => {
            if let Some(paid) = &mut facts.paid {
                paid.amount = Money::new(paid.amount.minor() - 1, paid.amount.currency());
            }
            Answer::Payment(facts)
        }
        (
            Sabotage::None
            | Sabotage::ForgetRefundIntents
            | Sabotage::ForgetHealIntents
            | Sabotage::ForgetEvents
            | Sabotage::ForgetPostings
            | Sabotage::DoubtIsDecline
            | Sabotage::DoubtIsNotFound
            | Sabotage::ShortPayment
            | Sabotage::UnheardIsDelivered
            | Sabotage::NewNotificationIds,
            answer,
        ) => answer,
    }
}

fn asked(operation: &Operation) -> String {
    match operation {
        Operation::Create(it) => format!("create {}", short(it.attempt.as_str())),
        Operation::Query { attempt } => format!("query {}", short(attempt.as_str())),
        Operation::Close { attempt } => format!("close {}", short(attempt.as_str())),
        Operation::Refund(it) => format!("refund {} {}", short(it.refund.as_str()), it.amount),
        Operation::QueryRefund { refund } => format!("query refund {}", short(refund.as_str())),
        Operation::Bill { .. } | Operation::Download { .. } | Operation::Keys => {
            "something else".into()
        }
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Prepared(_) => "prepared".into(),
        Answer::Payment(it) => match &it.paid {
            Some(paid) => format!("{:?} {}", it.state, paid.amount),
            None => format!("{:?}", it.state),
        },
        Answer::Refund(it) => format!("{:?}", it.state),
        Answer::Declined(it) => format!("declined {} temporary={}", it.code, it.temporary),
        Answer::InDoubt { why } => format!("in doubt, {why}"),
        other => format!("{other:?}"),
    }
}

/// Merchants' servers.
pub(super) struct WildCourier {
    pub(super) world: Shared,
}

impl Courier for WildCourier {
    async fn deliver(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> Delivery {
        pause(&self.world).await;
        let status = self.hears(merchant, notification, subject);
        pause(&self.world).await;
        let error = status.is_none().then(|| "no answer".into());
        Delivery { status, duration_ms: 1, body_head: String::new(), error }
    }
}

impl WildCourier {
    /// The status that comes back, if one does.
    fn hears(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> Option<u16> {
        let mut world = lock(&self.world);
        if subject.payment.state != PaymentState::Success {
            let state = subject.payment.state;
            world.find(format!("notified {:?} while {state:?}", notification.event));
        }
        let lied = world.sabotage == Sabotage::UnheardIsDelivered;
        if world.strikes(|it| it.merchant_unreached) {
            return lied.then_some(200);
        }
        let id = match world.sabotage == Sabotage::NewNotificationIds && notification.tries > 0 {
            // A merchant that tells events apart by id alone takes this for another one.
            true => subject.payment.serial,
            false => notification.id,
        };
        let patience = world.patience.get(&merchant.id).copied().unwrap_or(Patience::After(0));
        let heard = world.heard.entry(id).or_insert(Heard { times: 0, accepted: false });
        heard.times += 1;
        let accepts = match patience {
            Patience::After(refusals) => heard.times > refusals,
            Patience::Never => false,
        };
        heard.accepted |= accepts;
        let times = heard.times;
        world.note(|_| format!("   notified {:?} x{times} ok={accepts}", notification.event));
        if world.strikes(|it| it.merchant_unheard) {
            return None;
        }
        Some(if accepts || lied { 200 } else { 500 })
    }
}

/// The bus.
pub(super) struct WildPublisher {
    pub(super) world: Shared,
}

impl Publisher for WildPublisher {
    fn publish<'a>(&'a self, event: &'a BusinessEvent) -> Publishing<'a> {
        Box::pin(async move {
            pause(&self.world).await;
            let taken = self.takes(event);
            pause(&self.world).await;
            taken
        })
    }
}

impl WildPublisher {
    fn takes(&self, event: &BusinessEvent) -> Result<(), Unpublished> {
        let mut world = lock(&self.world);
        if !has_come_about(&world, event) {
            world.find(format!("published {} before it was so", event.id()));
        }
        if world.strikes(|it| it.merchant_unreached) {
            return Err(Unpublished("not reached".into()));
        }
        world.note(|_| format!("   published {}", short(&event.id())));
        world.told.insert(event.id());
        match world.strikes(|it| it.merchant_unheard) {
            true => Err(Unpublished("no answer".into())),
            false => Ok(()),
        }
    }
}

/// Whether what an event says has been committed.
fn has_come_about(world: &World, event: &BusinessEvent) -> bool {
    let payment = world.watch.payments.get(&event.payment).map(|it| it.state);
    let refund = event.refund.as_ref().and_then(|it| world.watch.refunds.get(&it.0));
    let refund = refund.map(|it| it.state);
    match event.name {
        EventName::PaymentSucceeded => payment == Some(PaymentState::Success),
        // An order that was closed may be paid by now.
        EventName::PaymentClosed => {
            matches!(payment, Some(PaymentState::Closed | PaymentState::Success))
        }
        EventName::RefundProcessing | EventName::RefundAbnormal => refund.is_some(),
        EventName::RefundSucceeded => refund == Some(RefundState::Success),
        EventName::RefundClosed => refund == Some(RefundState::Closed),
    }
}
