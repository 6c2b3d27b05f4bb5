//! The payer's pages: what is read from a request and a payment to fill the cashier's view.

use crate::cashier::{self, CashierState, CashierView, Choice, Lang, MethodView};
use crate::clock;
use crate::gateway::Gateway;
use crate::links;
use crate::settings::ChannelLabel;
use app::{PayError, PayRequest, Store};
use axum::body::Body;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use channel::{ChannelId, Prepay};
use futures::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kernel::{MerchantId, Serial, Zone};
use maud::Markup;
use payments::{AttemptState, Payment, PaymentState, StartRefusal, TradeProduct};
use routing::OrderFacts;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// What a payer's request says.
pub struct Payer {
    pub lang_query: Option<String>,
    pub headers: HeaderMap,
    pub ip: Option<String>,
}

impl Payer {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    fn lang(&self) -> Lang {
        let cookie = self
            .header(header::COOKIE)
            .and_then(|all| all.split(';').find_map(|it| it.trim().strip_prefix("lang=")));
        let accepted = self.header(header::ACCEPT_LANGUAGE);
        Lang::from_request(self.lang_query.as_deref(), cookie, accepted)
    }

    fn is_phone(&self) -> bool {
        let agent = self.header(header::USER_AGENT).unwrap_or("");
        ["Mobile", "Android", "iPhone"].iter().any(|it| agent.contains(it))
    }

    /// WeChat's own browser refuses H5 links; a code can be pressed long there.
    fn product(&self) -> TradeProduct {
        let agent = self.header(header::USER_AGENT).unwrap_or("");
        let inside = agent.contains("MicroMessenger");
        if self.is_phone() && !inside { TradeProduct::H5 } else { TradeProduct::Native }
    }
}

/// `GET /pay/{token}`: with one method its channel is asked at once, so the code is there.
pub async fn show(gateway: &Gateway, token: &str, payer: &Payer) -> Response {
    let lang = payer.lang();
    let Some(payment) = find(gateway, token).await else {
        return page(StatusCode::NOT_FOUND, &cashier::not_found(lang), lang);
    };
    let Some(payment) = payment else {
        return page(StatusCode::SERVICE_UNAVAILABLE, &cashier::unavailable(lang), lang);
    };
    let offered = offered(gateway, &payment);
    let open = payment.open_attempts().last().map(|it| ChannelId::new(&it.channel));
    let chosen = match (open, offered.as_slice()) {
        (Some(open), _) => Some(open),
        (None, [only]) => Some(only.id.clone()),
        (None, _) => None,
    };
    let may = payment.may_start(gateway.clock.now()).is_ok();
    let ready = match chosen {
        Some(id) if may => Some((id.clone(), prepare(gateway, &payment, id, payer).await)),
        Some(_) | None => None,
    };
    // What was just asked may have changed the payment.
    let payment = reload(gateway, payment).await;
    let merchant = gateway.merchants.name(&payment.merchant, clock::wall()).await;
    let view = view(gateway, token, &payment, merchant, &offered, ready, payer);
    page(StatusCode::OK, &cashier::render(&view), lang)
}

/// `POST /pay/{token}/{method}`: the payer chooses; then the page shows it.
pub async fn choose(gateway: &Gateway, token: &str, method: &str, payer: &Payer) -> Response {
    let lang = payer.lang();
    if !same_origin(gateway, payer) {
        return page(StatusCode::FORBIDDEN, &cashier::not_found(lang), lang);
    }
    let Some(found) = find(gateway, token).await else {
        return page(StatusCode::NOT_FOUND, &cashier::not_found(lang), lang);
    };
    if let Some(payment) = found {
        let prepared = prepare(gateway, &payment, ChannelId::new(method), payer).await;
        if let Err(error) = prepared {
            // The page that follows tells the payer.
            tracing::info!(%error, payment = %payment.serial, method, "no code for a payer");
        }
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    set(&mut response, header::LOCATION, &format!("/pay/{token}"));
    response
}

fn same_origin(gateway: &Gateway, payer: &Payer) -> bool {
    match payer.header(header::ORIGIN) {
        None => true,
        Some(origin) => {
            let host = payer.header(header::HOST).unwrap_or("");
            origin == gateway.settings().config.server.public_url
                || origin.split_once("://").is_some_and(|it| it.1 == host)
        }
    }
}

/// `GET /pay/{token}/live`: the state now, and whenever it changes.
pub async fn live(
    gateway: Arc<Gateway>,
    token: &str,
) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
    let (merchant, serial) = links::read_cashier(&gateway.link_key, token)?;
    let changes = gateway.live.changes();
    let start = (gateway, merchant, serial, changes, None::<CashierState>);
    let states =
        stream::unfold(start, |(gateway, merchant, serial, mut changes, last)| async move {
            while !gateway.live.is_ending() {
                if let Some(state) = state_of(&gateway, &merchant, serial).await
                    && last.map(|it| it.name()) != Some(state.name())
                {
                    let event = Event::default().data(format!(r#"{{"state":"{}"}}"#, state.name()));
                    return Some((Ok(event), (gateway, merchant, serial, changes, Some(state))));
                }
                // Also looks by itself: time passes, and another process may have changed it.
                let look = tokio::time::sleep(Duration::from_secs(2));
                tokio::select! {
                    () = look => {}
                    change = wait_for(&mut changes, serial) => change?,
                }
            }
            None
        });
    Some(Sse::new(states).keep_alive(KeepAlive::default()))
}

async fn wait_for(
    changes: &mut tokio::sync::broadcast::Receiver<Serial>,
    serial: Serial,
) -> Option<()> {
    loop {
        match changes.recv().await {
            Ok(changed) if changed == serial => return Some(()),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Some(()),
            Err(RecvError::Closed) => return None,
        }
    }
}

async fn state_of(
    gateway: &Gateway,
    merchant: &MerchantId,
    serial: Serial,
) -> Option<CashierState> {
    let found = gateway.store().payment(merchant, serial).await.ok()??;
    Some(state(gateway, &found.value))
}

/// `GET /assets/{name}`: style and script, named by their hash.
pub fn asset(name: &str) -> Option<Response> {
    let (kind, body) = cashier::asset(name)?;
    let mut response = Response::new(Body::from(body));
    set(&mut response, header::CONTENT_TYPE, kind);
    set(&mut response, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    Some(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn page(status: StatusCode, markup: &Markup, lang: Lang) -> Response {
    let mut response = Response::new(Body::from(markup.0.clone()));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(&mut response, header::CONTENT_SECURITY_POLICY, cashier::CONTENT_SECURITY_POLICY);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, header::REFERRER_POLICY, "strict-origin");
    let cookie = format!("lang={}; Path=/; Max-Age=31536000; SameSite=Lax", lang.code());
    set(&mut response, header::SET_COOKIE, &cookie);
    response
}

/// `None`: no such page. `Some(None)`: storage let us down.
async fn find(gateway: &Gateway, token: &str) -> Option<Option<Payment>> {
    let (merchant, serial) = links::read_cashier(&gateway.link_key, token)?;
    match gateway.store().payment(&merchant, serial).await {
        Ok(Some(found)) => Some(Some(found.value)),
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%error, "a cashier page could not be read");
            Some(None)
        }
    }
}

async fn reload(gateway: &Gateway, payment: Payment) -> Payment {
    match gateway.store().payment(&payment.merchant, payment.serial).await {
        Ok(Some(found)) => found.value,
        Ok(None) | Err(_) => payment,
    }
}

/// The channels that take the order.
fn offered(gateway: &Gateway, payment: &Payment) -> Vec<ChannelLabel> {
    let facts = OrderFacts { amount: payment.terms.amount, product: None };
    let (policy, settings) = (gateway.platform.policy(), gateway.settings());
    let willing = policy.candidates.iter().filter(|it| it.refusal(&facts).is_none());
    let label =
        |it: &routing::Candidate| settings.labels.iter().find(|label| label.id == it.id).cloned();
    willing.filter_map(label).collect()
}

async fn prepare(
    gateway: &Gateway,
    payment: &Payment,
    channel: ChannelId,
    payer: &Payer,
) -> Result<Prepay, PayError> {
    let request = PayRequest {
        merchant: payment.merchant.clone(),
        payment: payment.serial,
        product: payer.product(),
        channel: Some(channel),
        payer_ip: payer.ip.clone(),
    };
    gateway.platform.pay(&request, gateway.clock.now()).await
}

fn state(gateway: &Gateway, payment: &Payment) -> CashierState {
    let now = gateway.clock.now();
    match payment.state {
        PaymentState::Success => {
            let at = payment.receipt.as_ref().map_or(now, |it| it.at);
            CashierState::Success { at, paid: None }
        }
        PaymentState::Closed if payment.expires <= now => CashierState::Expired,
        PaymentState::Closed | PaymentState::Revoked => CashierState::Closed,
        PaymentState::PayError => CashierState::Failed,
        PaymentState::NotPay | PaymentState::UserPaying => match payment.may_start(now) {
            Err(StartRefusal::Held) => CashierState::InDoubt,
            Err(StartRefusal::Expired | StartRefusal::Closed | StartRefusal::Paid) => {
                CashierState::Expired
            }
            Ok(()) if payment.state == PaymentState::UserPaying => CashierState::Paying,
            Ok(()) => CashierState::Waiting,
        },
    }
}

fn view(
    gateway: &Gateway,
    token: &str,
    payment: &Payment,
    merchant: String,
    offered: &[ChannelLabel],
    mut ready: Option<(ChannelId, Result<Prepay, PayError>)>,
    payer: &Payer,
) -> CashierView {
    let methods = offered
        .iter()
        .map(|label| {
            let mine = ready.take_if(|it| it.0 == label.id);
            MethodView {
                id: label.id.to_string(),
                label_zh: label.zh.clone(),
                label_en: label.en.clone(),
                choose_url: format!("/pay/{token}/{}", label.id),
                choice: mine.map_or(Choice::Offered, |it| choice(payment, it.1)),
            }
        })
        .collect();
    CashierView {
        merchant,
        goods: payment.terms.description.clone(),
        order_no: payment.terms.order_no.clone(),
        amount: payment.terms.amount,
        state: state(gateway, payment),
        methods,
        expires: payment.expires,
        now: gateway.clock.now(),
        zone: Zone::shanghai(),
        return_url: payment.terms.return_url.clone(),
        live_url: format!("/pay/{token}/live"),
        self_url: format!("/pay/{token}"),
        lang: payer.lang(),
        phone: payer.is_phone(),
    }
}

fn choice(payment: &Payment, prepared: Result<Prepay, PayError>) -> Choice {
    match prepared {
        Ok(prepay) => {
            let known = payment.open_attempts().find_map(|it| it.prepay.as_ref());
            let h5 = prepay.h5_url.or_else(|| known.and_then(|it| it.h5_url.clone()));
            // A code that is a web address, as simulators have it, can be followed as well.
            let web = prepay.code_url.clone().filter(|it| it.starts_with("http"));
            Choice::Ready { code_url: prepay.code_url, open_url: h5.or(web) }
        }
        Err(PayError::Declined(it)) if it.temporary => Choice::Preparing,
        Err(PayError::Declined(_) | PayError::NoChannel(_)) => Choice::Refused { why: None },
        Err(PayError::InDoubt) => Choice::Preparing,
        Err(error) => {
            let waiting = payment.attempts.iter().any(|it| it.state == AttemptState::InDoubt);
            tracing::warn!(%error, payment = %payment.serial, "no code for a payer");
            if waiting { Choice::Preparing } else { Choice::Refused { why: None } }
        }
    }
}
