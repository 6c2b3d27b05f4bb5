//! The JSON control API under `/_sim/`: what scripts do to the simulator.
//!
//! Reads and writes JSON; the table of calls stands at the head of the module `wechat`.

use super::callbacks::CallbackLog;
use super::faults::{Chance, Planned};
use super::orders::{Outcome, Reference};
use super::sim::{OrderView, WechatSim};
use kernel::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wechatpay::beijing::rfc3339;
use wechatpay::query::Query;

/// A status and a body.
pub(super) type Answer = (u16, Value);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    out_trade_no: Option<String>,
    code: Option<String>,
    mchid: Option<String>,
    outcome: String,
    payer: Option<String>,
    amount_minor: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFaults {
    #[serde(default)]
    clear: bool,
    #[serde(default)]
    next: Vec<Planned>,
    #[serde(default)]
    chance: Vec<Chance>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u32,
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|it| refuse("BAD_REQUEST", &it.to_string()))
}

fn refuse(code: &str, message: &str) -> Answer {
    (400, json!({ "code": code, "message": message }))
}

/// Answers a call; `None` for a path that is not of this API.
pub(super) fn call(
    sim: &mut WechatSim,
    method: &str,
    path: &str,
    query: &Query,
    body: &[u8],
    wall_now: Timestamp,
) -> Option<Answer> {
    let answer = match (method, path) {
        ("GET", "/_sim/orders") => {
            let wanted = query.get("out_trade_no");
            let all = sim.orders(wall_now);
            let kept = all.iter().filter(|it| wanted.is_none_or(|no| it.out_trade_no == no));
            let orders: Vec<Value> = kept.map(order).collect();
            Ok((200, json!({ "orders": orders })))
        }
        ("POST", "/_sim/confirm") => confirm(sim, body, wall_now),
        ("POST", "/_sim/faults") => faults(sim, body),
        ("POST", "/_sim/clock") => read::<Advance>(body).map(|it| {
            sim.advance(it.advance_s);
            (200, clock(sim, wall_now))
        }),
        ("GET", "/_sim/clock") => Ok((200, clock(sim, wall_now))),
        ("GET", "/_sim/callbacks") => {
            let log: Vec<Value> = sim.callback_log().iter().map(callback).collect();
            Ok((200, json!({ "callbacks": log })))
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refused| refused))
}

fn clock(sim: &WechatSim, wall_now: Timestamp) -> Value {
    json!({ "business_time": rfc3339(sim.business_now(wall_now)), "wall_time": rfc3339(wall_now) })
}

fn confirm(sim: &mut WechatSim, body: &[u8], wall_now: Timestamp) -> Result<Answer, Answer> {
    let it: Confirm = read(body)?;
    let outcome = Outcome::parse(&it.outcome, it.amount_minor).ok_or_else(|| {
        let words = Outcome::WORDS.join(", ");
        refuse("BAD_OUTCOME", &format!("outcome {:?} is none of: {words}", it.outcome))
    })?;
    let reference = match (&it.out_trade_no, &it.code) {
        (Some(out_trade_no), None) => {
            Reference::Number { out_trade_no, mchid: it.mchid.as_deref() }
        }
        (None, Some(code)) => Reference::Code(code),
        _ => return Err(refuse("BAD_REQUEST", "give either out_trade_no or code")),
    };
    let number = sim
        .confirm(reference, outcome, it.payer.as_deref(), wall_now)
        .map_err(|it| (409, json!({ "code": "REFUSED", "message": it.to_string() })))?;
    Ok((200, sim.order(&number, wall_now).as_ref().map_or(Value::Null, order)))
}

fn faults(sim: &mut WechatSim, body: &[u8]) -> Result<Answer, Answer> {
    let it: SetFaults = read(body)?;
    if it.clear {
        sim.clear_faults();
    }
    let (planned, chances) = (it.next.len(), it.chance.len());
    it.next.into_iter().for_each(|it| sim.plan_fault(it));
    it.chance.into_iter().for_each(|it| sim.risk_fault(it));
    Ok((200, json!({ "planned": planned, "chances": chances })))
}

fn order(it: &OrderView) -> Value {
    let refunds: Vec<Value> = it
        .refunds
        .iter()
        .map(|it| {
            json!({
                "out_refund_no": it.out_refund_no,
                "refund_id": it.refund_id,
                "status": it.status,
                "amount_minor": it.amount_minor,
            })
        })
        .collect();
    json!({
        "mchid": it.mchid,
        "out_trade_no": it.out_trade_no,
        "product": it.product,
        "description": it.description,
        "trade_state": it.trade_state,
        "amount_minor": it.amount_minor,
        "currency": it.currency,
        "transaction_id": it.transaction_id,
        "paid_minor": it.paid_minor,
        "code": it.code,
        "prepay_id": it.prepay_id,
        "created": rfc3339(it.created),
        "expires": rfc3339(it.expires),
        "refunds": refunds,
    })
}

fn callback(it: &CallbackLog) -> Value {
    let tries: Vec<Value> =
        it.tries.iter().map(|it| json!({ "at": rfc3339(it.at), "status": it.status })).collect();
    json!({
        "notification_id": it.notification_id,
        "mchid": it.mchid,
        "out_trade_no": it.out_trade_no,
        "event_type": it.event_type,
        "url": it.url,
        "tries": tries,
        "accepted": it.accepted,
        "next": it.next.map(rfc3339),
    })
}
