//! Starting an attempt: the payer has come, a channel's order is created for them.

use crate::evidence::NewsError;
use crate::place::channel_product;
use crate::ports::{Commit, CommitError, Intent, IntentChange, IntentKind, Put, StoreError};
use crate::{Courier, Platform, Provider, Store, Versioned};
use channel::{Answer, ChannelId, CreateOrder, Operation};
use kernel::{BasisPoints, MerchantId, Serial, SerialKind, Timestamp};
use payments::{Attempt, AttemptState, Evidence, Payment, Prepay, TradeProduct};
use routing::{Decision, OrderFacts};

/// How long a channel's code is good for showing again: WeChat's lives two hours.
const CODE_LIFE_MS: i64 = 110 * 60 * 1000;

/// A payer who wants to pay an order.
#[derive(Clone, Debug)]
pub struct PayRequest {
    pub merchant: MerchantId,
    pub payment: Serial,
    /// What suits the payer's device.
    pub product: TradeProduct,
    /// The payer's choice; `None` leaves it to routing.
    pub channel: Option<ChannelId>,
    pub payer_ip: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PayError {
    #[error("no such order")]
    NotFound,
    #[error("no channel takes the order")]
    NoChannel(Decision),
    #[error("order {order_no}: {refusal}")]
    Start { order_no: String, refusal: payments::StartRefusal },
    #[error("the channel refuses: {} {}", .0.code, .0.message)]
    Declined(channel::Decline),
    #[error("the channel did not answer")]
    InDoubt,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the attempt could not be written")]
    Commit(#[source] CommitError),
}

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Gives the payer a channel's code or link, creating the channel's order if there is none.
    #[tracing::instrument(target = "feiqian::trace", level = "trace", skip_all)]
    pub async fn pay(
        &self,
        request: &PayRequest,
        now: Timestamp,
    ) -> Result<channel::Prepay, PayError> {
        // An attempt for which the channel gives no new code.
        let mut spent = None;
        for _ in 0..8 {
            let found = self.store.payment(&request.merchant, request.payment).await?;
            let Versioned { value: payment, version } = found.ok_or(PayError::NotFound)?;
            let refused =
                |refusal| PayError::Start { order_no: payment.terms.order_no.clone(), refusal };
            payment.may_start(now).map_err(refused)?;
            let chosen = self.choose(&payment, request)?;
            let same = |it: &&Attempt| {
                let fits = it.channel == chosen.as_str() && it.product == request.product;
                fits && spent != Some(it.serial)
            };
            if let Some(attempt) = payment.open_attempts().find(same) {
                if let Some(prepay) = usable(attempt, now) {
                    return Ok(prepay);
                }
                let ip = request.payer_ip.clone();
                match self.prepare(&payment, attempt.serial, ip, now).await {
                    // Created for another address of the payer, say: the next gets a new order.
                    Err(PayError::Declined(it)) if !it.temporary && spent.is_none() => {
                        spent = Some(attempt.serial);
                        continue;
                    }
                    other => return other,
                }
            }
            let attempt = self.new_attempt(&payment, &chosen, request.product, now);
            let serial = attempt.serial;
            let next = payment.with_attempt(attempt);
            let heal = Intent {
                merchant: next.merchant.clone(),
                kind: IntentKind::Heal,
                subject: next.serial,
                due: now.plus_s(payments::poll_delay_s(0)).min(next.expires),
                tries: 0,
                holder: None,
            };
            let commit = Commit {
                payments: vec![Put { value: next.clone(), expected: version }],
                intents: vec![IntentChange::Schedule(heal)],
                ..Commit::default()
            };
            match self.commit(commit).await {
                Ok(()) => {
                    return self.prepare(&next, serial, request.payer_ip.clone(), now).await;
                }
                Err(CommitError::Stale(_)) => {}
                Err(error) => return Err(PayError::Commit(error)),
            }
        }
        Err(PayError::InDoubt)
    }

    fn choose(&self, payment: &Payment, request: &PayRequest) -> Result<ChannelId, PayError> {
        let product = channel_product(request.product);
        let facts = OrderFacts { amount: payment.terms.amount, product };
        let policy = self.policy();
        let offered = policy.candidates.iter();
        let wanted: Vec<routing::Candidate> = match &request.channel {
            Some(wish) => offered.filter(|it| it.id == *wish).cloned().collect(),
            None => offered.cloned().collect(),
        };
        let decision = routing::choose(&facts, &wanted);
        decision.chosen.clone().ok_or(PayError::NoChannel(decision))
    }

    pub(crate) fn new_attempt(
        &self,
        payment: &Payment,
        channel: &ChannelId,
        product: TradeProduct,
        now: Timestamp,
    ) -> Attempt {
        let policy = self.policy();
        let candidate = policy.candidates.iter().find(|it| it.id == *channel);
        Attempt {
            serial: self.serial(now, SerialKind::Attempt),
            channel: channel.as_str().into(),
            product,
            amount: payment.terms.amount,
            cost_rate: candidate.map_or(BasisPoints::ZERO, |it| it.cost),
            state: AttemptState::Sent,
            started: now,
            prepay: None,
            receipt: None,
            note: None,
        }
    }

    /// Asks the channel to create the attempt's order. Repeating it gives fresh codes.
    pub(crate) async fn prepare(
        &self,
        payment: &Payment,
        attempt: Serial,
        payer_ip: Option<String>,
        now: Timestamp,
    ) -> Result<channel::Prepay, PayError> {
        let known = payment.attempt(attempt).ok_or(PayError::NotFound)?;
        let (id, product) = (ChannelId::new(&known.channel), channel_product(known.product));
        let Some(product) = product else { return Err(PayError::NotFound) };
        let operation = Operation::Create(CreateOrder {
            attempt,
            callback_path: callback_path(payment),
            product,
            amount: known.amount,
            description: payment.terms.description.clone(),
            expires: payment.expires,
            payer: payment.terms.payer.clone(),
            // What the merchant said of the payer counts; a hosted cashier sees for itself.
            payer_ip: payment.terms.payer_ip.clone().or(payer_ip),
            h5_type: payment.terms.h5_type.clone().or_else(|| Some("Wap".into())),
        });
        let answer = self.provider.ask(&id, &operation).await;
        let (evidence, outcome) = match answer {
            Answer::Prepared(prepay) => {
                let known = Prepay {
                    code_url: prepay.code_url.clone(),
                    h5_url: prepay.h5_url.clone(),
                    prepay_id: prepay.prepay_id.clone(),
                };
                (Evidence::Prepared(known), Ok(prepay))
            }
            Answer::Declined(decline) if decline.temporary => {
                let why = format!("{} {}", decline.code, decline.message);
                (Evidence::NoAnswer { why }, Err(PayError::Declined(decline)))
            }
            Answer::Declined(decline) => {
                let why = format!("{} {}", decline.code, decline.message);
                // An earlier request may have created the order all the same, and its payer may
                // be paying: it has failed only if the channel does not know it.
                let evidence = match self.heard(&id, attempt, &Operation::Query { attempt }).await {
                    Evidence::NotFound => Evidence::Failed { why },
                    known => known,
                };
                (evidence, Err(PayError::Declined(decline)))
            }
            Answer::InDoubt { why } => (Evidence::NoAnswer { why }, Err(PayError::InDoubt)),
            other => {
                let why = format!("an answer to another question: {other:?}");
                (Evidence::NoAnswer { why }, Err(PayError::InDoubt))
            }
        };
        let recorded = self.record(&payment.merchant, payment.serial, attempt, &evidence, now);
        match recorded.await {
            Ok(_) => outcome,
            Err(NewsError::Store(error)) => Err(PayError::Store(error)),
            Err(NewsError::Commit(error)) => Err(PayError::Commit(error)),
            Err(NewsError::Unconfirmed { .. }) => Err(PayError::InDoubt),
        }
    }
}

/// Where this payment's callbacks are to be sent, below the channel's own path.
pub(crate) fn callback_path(payment: &Payment) -> String {
    format!("{}/{}", payment.merchant, payment.serial)
}

/// A code that was shown before and is still good; links for phones live too briefly.
fn usable(attempt: &Attempt, now: Timestamp) -> Option<channel::Prepay> {
    let prepay = attempt.prepay.as_ref()?;
    let code_url = prepay.code_url.clone()?;
    let fresh = now.ms_since(attempt.started) < CODE_LIFE_MS;
    fresh.then(|| channel::Prepay { code_url: Some(code_url), ..channel::Prepay::default() })
}
