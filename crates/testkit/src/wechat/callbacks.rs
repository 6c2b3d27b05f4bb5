//! Notifications: queueing, faults, the retry ladder, the log.
//!
//! Sending is the caller's: it takes what is due and says what came back.

use super::faults::Fault;
use super::sim::WechatSim;
use kernel::Timestamp;
use std::collections::BTreeMap;
use wechatpay::headers::{CONTENT_TYPE, REQUEST_ID, SignatureHeaders};
use wechatpay::notification::{Envelope, EventType, NOTIFY_LADDER_S, is_accepted};
use wechatpay::signing::PROBE_PREFIX;

/// A notification to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingCallback {
    /// Of this try; give it back with the answer.
    pub id: u64,
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// A notification and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackLog {
    /// The notification's own id: the same on every try.
    pub notification_id: String,
    pub mchid: String,
    pub out_trade_no: String,
    pub event_type: String,
    pub url: String,
    pub tries: Vec<Try>,
    pub accepted: bool,
    /// The business time of the next try.
    pub next: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Business time.
    pub at: Timestamp,
    /// `None` while it is under way, or if no answer came.
    pub status: Option<u16>,
}

#[derive(Default)]
pub(super) struct Callbacks {
    sent: Vec<Callback>,
    /// Tries to come, by business time, then by number.
    waiting: BTreeMap<(Timestamp, u64), Waiting>,
    /// Tries that wait for their answer.
    under_way: BTreeMap<u64, UnderWay>,
    next_try: u64,
}

struct Callback {
    log: CallbackLog,
    body: String,
    bad_signature: bool,
    failed: usize,
}

#[derive(Clone, Copy)]
struct Waiting {
    callback: usize,
    /// A second copy of a try; it does not climb the ladder.
    copy: bool,
}

struct UnderWay {
    waiting: Waiting,
    row: usize,
}

impl WechatSim {
    /// Queues a notification.
    pub(super) fn announce(
        &mut self,
        mchid: &str,
        out_trade_no: &str,
        url: &str,
        event: EventType,
        plain: &str,
        now: Timestamp,
    ) {
        let faults = self.faults.of_callback(&mut self.dice);
        if faults.contains(&Fault::CallbackLost) {
            return;
        }
        let mut plain = plain.to_owned();
        if faults.contains(&Fault::CallbackWrongAmount) {
            plain = with_one_fen_more(&plain);
        }
        if faults.contains(&Fault::CallbackUnknownState) {
            plain = with_unknown_state(&plain);
        }
        let nonce = self.new_gcm_nonce();
        let id = self.new_notification_id(now);
        let key = self.merchant(mchid).facts.apiv3_key.clone();
        let event_type = event.word().to_owned();
        let envelope = Envelope::seal(&id, now, event, plain.as_bytes(), &nonce, &key)
            .expect("nonces are made with 12 characters");
        let late = faults.iter().find_map(|it| match it {
            Fault::CallbackLate { ms } => Some(i64::try_from(*ms).unwrap_or(i64::MAX)),
            _ => None,
        });
        let due = now.plus_ms(late.unwrap_or(0));
        let callback = self.callbacks.sent.len();
        self.callbacks.sent.push(Callback {
            log: CallbackLog {
                notification_id: id,
                mchid: mchid.to_owned(),
                out_trade_no: out_trade_no.to_owned(),
                event_type,
                url: url.to_owned(),
                tries: Vec::new(),
                accepted: false,
                next: Some(due),
            },
            body: envelope.to_json(),
            bad_signature: faults.contains(&Fault::CallbackBadSignature),
            failed: 0,
        });
        self.callbacks.wait(due, Waiting { callback, copy: false });
        if faults.contains(&Fault::CallbackDuplicate) {
            self.callbacks.wait(due, Waiting { callback, copy: true });
        }
    }

    /// `EV-` and 33 more characters.
    fn new_notification_id(&mut self, now: Timestamp) -> String {
        let day = wechatpay::beijing::day(now).compact();
        format!("EV-{day}{}", self.dice.text(super::dice::LETTERS, 25))
    }

    /// The tries that are due, signed now. Each is handed out once; say what came of it with
    /// [`WechatSim::callback_answered`].
    pub fn due_callbacks(&mut self, wall_now: Timestamp) -> Vec<OutgoingCallback> {
        let now = self.tick(wall_now);
        let mut out = Vec::new();
        while let Some((&(due, id), &waiting)) = self.callbacks.waiting.first_key_value() {
            if due > now {
                break;
            }
            self.callbacks.waiting.pop_first();
            let nonce = self.new_nonce();
            let serial = self.notify_serial();
            let callback = &mut self.callbacks.sent[waiting.callback];
            let signer = self.platform.ring.signer_for(serial.as_deref());
            let body = callback.body.clone().into_bytes();
            let seconds = wall_now.seconds();
            let mut signed =
                SignatureHeaders::sign(&signer.signer, &signer.id, seconds, &nonce, &body);
            // A probe is wrong once; the same notification follows with a right signature.
            if std::mem::take(&mut callback.bad_signature) {
                signed.signature.insert_str(0, PROBE_PREFIX);
            }
            callback.log.tries.push(Try { at: now, status: None });
            callback.log.next = None;
            let row = callback.log.tries.len() - 1;
            let url = callback.log.url.clone();
            let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
            headers.extend(signed.pairs());
            headers.push((REQUEST_ID, format!("{}-0", nonce.to_ascii_uppercase())));
            self.callbacks.under_way.insert(id, UnderWay { waiting, row });
            out.push(OutgoingCallback { id, url, headers, body });
        }
        out
    }

    /// The name that a notification is signed under.
    fn notify_serial(&mut self) -> Option<String> {
        let (Some(certificate), Some(id)) =
            (&self.platform.certificate, &self.platform.public_key_id)
        else {
            return None;
        };
        let (serial, id) = (certificate.serial().to_owned(), id.clone());
        let share = u16::from(self.platform.notify_public_key_percent) * 10;
        Some(if self.dice.chance(share) { id } else { serial })
    }

    /// The answer to a try: a status, or nothing within five seconds.
    pub fn callback_answered(&mut self, id: u64, status: Option<u16>, wall_now: Timestamp) {
        let now = self.tick(wall_now);
        let Some(UnderWay { waiting, row }) = self.callbacks.under_way.remove(&id) else { return };
        let callback = &mut self.callbacks.sent[waiting.callback];
        if let Some(it) = callback.log.tries.get_mut(row) {
            it.status = status;
        }
        if status.is_some_and(is_accepted) {
            callback.log.accepted = true;
            callback.log.next = None;
        }
        if callback.log.accepted || waiting.copy {
            return;
        }
        callback.failed += 1;
        if let Some(&wait_s) = NOTIFY_LADDER_S.get(callback.failed - 1) {
            let due = now.plus_s(wait_s);
            callback.log.next = Some(due);
            self.callbacks.wait(due, waiting);
        }
    }

    /// All notifications, oldest first.
    pub fn callback_log(&self) -> Vec<CallbackLog> {
        self.callbacks.sent.iter().map(|it| it.log.clone()).collect()
    }
}

impl Callbacks {
    fn wait(&mut self, due: Timestamp, waiting: Waiting) {
        self.next_try += 1;
        self.waiting.insert((due, self.next_try), waiting);
    }
}

fn changed(json: &str, change: impl Fn(&mut serde_json::Value)) -> String {
    let mut value: serde_json::Value =
        serde_json::from_str(json).expect("we wrote this JSON ourselves");
    change(&mut value);
    value.to_string()
}

fn with_one_fen_more(json: &str) -> String {
    changed(json, |value| {
        for name in ["/amount/total", "/amount/payer_total", "/amount/refund"] {
            if let Some(it) = value.pointer_mut(name) {
                *it = it.as_i64().map_or(0, |it| it.saturating_add(1)).into();
            }
        }
    })
}

/// Puts a word that nobody knows where the state stands.
pub(super) fn with_unknown_state(json: &str) -> String {
    changed(json, |value| {
        for name in ["trade_state", "status", "refund_status"] {
            if let Some(it) = value.get_mut(name) {
                *it = "MYSTERY".into();
            }
        }
    })
}
