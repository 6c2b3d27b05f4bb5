//! One simulator, one merchant with its keys, and a clock that stands still until it is moved.

use kernel::Timestamp;
use seal::{Signer, Verifier};
use serde_json::{Value, json};
use std::sync::LazyLock;
use testkit::wechat::{
    Fault, Outcome, Planned, PlatformKeys, Reference, SimAnswer, SimMerchant, SimRequest,
    WechatSim, WechatSimSettings,
};
use wechatpay::headers::SignatureHeaders;
use wechatpay::notification::Envelope;
use wechatpay::signing::{SCHEME_RSA, request_message};
use wechatpay::{Apiv3Key, Authorization, RefundNotice, Transaction};

pub const MCHID: &str = "1900000109";
pub const APPID: &str = "wx2421b1c4370ec43b";
pub const SERIAL: &str = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1";
pub const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_0119000001092026112100000001";
pub const NOTIFY_URL: &str = "https://example.com/notify";

pub struct Keys {
    pub merchant: Signer,
    pub platform_pem: String,
    pub certificate_pem: String,
}

/// RSA keys take a moment to make: once for all tests.
pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let platform_pem = seal::generate_rsa().private_pem;
    let (from, to) = (Timestamp::from_ms(0), noon().plus_s(5 * 365 * 86_400));
    let certificate_pem =
        seal::self_signed(&platform_pem, "simulated platform", [7; 20], from, to).unwrap();
    let merchant = Signer::from_pem(&seal::generate_rsa().private_pem).unwrap();
    Keys { merchant, platform_pem, certificate_pem }
});

pub fn noon() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-21T12:00:00+08:00").unwrap()
}

pub fn apiv3_key() -> Apiv3Key {
    Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").unwrap()
}

pub fn settings() -> WechatSimSettings {
    let merchant = |mchid: &str, serial: &str| SimMerchant {
        mchid: mchid.into(),
        name: "飞钱示例店".into(),
        appids: vec![APPID.into()],
        serial: serial.into(),
        key_pem: KEYS.merchant.public_key_pem(),
        apiv3_key: apiv3_key(),
        refund_notify_url: None,
        fee_bps: 60,
    };
    let platform = PlatformKeys {
        private_pem: KEYS.platform_pem.clone(),
        certificate_pem: Some(KEYS.certificate_pem.clone()),
        public_key_id: Some(PUBLIC_KEY_ID.into()),
        notify_public_key_percent: 100,
    };
    let mut settings = WechatSimSettings::new(
        platform,
        vec![merchant(MCHID, SERIAL), merchant("1900000110", "AB")],
    );
    settings.base_url = "http://sim.test".into();
    settings
}

pub struct World {
    pub sim: WechatSim,
    /// The wall clock.
    pub now: Timestamp,
    nonce: u64,
}

/// Signs a call as the merchant does.
pub fn signed(
    method: &str,
    target: &str,
    body: &str,
    mchid: &str,
    serial: &str,
    at: Timestamp,
    nonce: &str,
) -> SimRequest {
    let message = request_message(method, target, at.seconds(), nonce, body.as_bytes());
    let authorization = Authorization {
        scheme: SCHEME_RSA.into(),
        mchid: mchid.into(),
        nonce: nonce.into(),
        timestamp: at.seconds(),
        serial: serial.into(),
        signature: KEYS.merchant.sign_base64(&message),
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    SimRequest {
        method: method.into(),
        path_and_query: target.into(),
        headers: vec![
            header("accept", "application/json"),
            header("user-agent", "test"),
            header("content-type", "application/json"),
            header("authorization", &authorization.render()),
        ],
        body: body.as_bytes().to_vec(),
    }
}

pub fn platform_verifier() -> Verifier {
    Verifier::from_certificate_pem(&KEYS.certificate_pem).unwrap()
}

pub fn holds(answer: &SimAnswer) -> bool {
    SignatureHeaders::read(|name| answer.header(name))
        .is_ok_and(|it| it.holds(&platform_verifier(), &answer.body))
}

impl World {
    pub fn new() -> World {
        World { sim: WechatSim::new(settings()).unwrap(), now: noon(), nonce: 0 }
    }

    pub fn request(&mut self, method: &str, target: &str, body: &str) -> SimRequest {
        self.nonce += 1;
        let nonce = format!("N{:031}", self.nonce);
        signed(method, target, body, MCHID, SERIAL, self.now, &nonce)
    }

    /// A call of the merchant; the answer's signature is not looked at.
    pub fn raw(&mut self, method: &str, target: &str, body: &str) -> SimAnswer {
        let request = self.request(method, target, body);
        self.sim.handle(&request, self.now)
    }

    /// A call whose answer must be signed and have this status; its JSON, or null.
    #[track_caller]
    pub fn call(&mut self, method: &str, target: &str, body: &str, status: u16) -> Value {
        let answer = self.raw(method, target, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{method} {target}: {text}");
        assert!(holds(&answer), "{method} {target}: the answer is not signed");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A call that must be refused with this status and code.
    #[track_caller]
    pub fn refused(&mut self, method: &str, target: &str, body: &str, status: u16, code: &str) {
        assert_eq!(self.call(method, target, body, status)["code"], code, "{method} {target}");
    }

    /// Places a native order of 1,000 fen and returns its code.
    #[track_caller]
    pub fn order(&mut self, number: &str) -> String {
        let body = order_body(number).to_string();
        let answer = self.call("POST", "/v3/pay/transactions/native", &body, 200);
        code_of(&answer)
    }

    pub fn query(&mut self, number: &str) -> Transaction {
        let target = format!("/v3/pay/transactions/out-trade-no/{number}?mchid={MCHID}");
        Transaction::parse(self.call("GET", &target, "", 200).to_string().as_bytes()).unwrap()
    }

    #[track_caller]
    pub fn state(&mut self, number: &str, want: &str) {
        assert_eq!(self.query(number).trade_state.word(), want);
    }

    #[track_caller]
    pub fn pay(&mut self, number: &str) {
        self.confirm(number, Outcome::Success).unwrap();
    }

    pub fn confirm(
        &mut self,
        number: &str,
        outcome: Outcome,
    ) -> Result<String, testkit::wechat::ConfirmError> {
        let reference = Reference::Number { out_trade_no: number, mchid: None };
        self.sim.confirm(reference, outcome, None, self.now)
    }

    #[track_caller]
    pub fn refund(&mut self, number: &str, refund: &str, minor: i64) -> Value {
        let body = refund_body(number, refund, minor).to_string();
        self.call("POST", "/v3/refund/domestic/refunds", &body, 200)
    }

    pub fn fault(&mut self, fault: Fault) {
        self.sim.plan_fault(Planned { fault, on: None, times: 1 });
    }

    /// Sends what is due and answers each with this status. Returns what was sent.
    pub fn deliver(&mut self, status: Option<u16>) -> Vec<Notice> {
        let due = self.sim.due_callbacks(self.now);
        let mut sent = Vec::new();
        for it in due {
            let get = |name: &str| it.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str());
            let headers = SignatureHeaders::read(get).unwrap();
            let envelope = Envelope::parse(&it.body).unwrap();
            sent.push(Notice {
                url: it.url,
                signed: headers.holds(&platform_verifier(), &it.body),
                serial: headers.serial,
                plain: envelope.open(&apiv3_key()).unwrap(),
                id: envelope.id,
                event: envelope.event_type.word().to_owned(),
            });
            self.sim.callback_answered(it.id, status, self.now);
        }
        sent
    }
}

/// A notification as its receiver sees it.
pub struct Notice {
    pub url: String,
    pub signed: bool,
    pub serial: String,
    pub id: String,
    pub event: String,
    pub plain: Vec<u8>,
}

impl Notice {
    pub fn transaction(&self) -> Transaction {
        Transaction::parse(&self.plain).unwrap()
    }

    pub fn refund(&self) -> RefundNotice {
        RefundNotice::parse(&self.plain).unwrap()
    }
}

pub fn order_body(number: &str) -> Value {
    json!({
        "appid": APPID,
        "mchid": MCHID,
        "description": "一斤苹果",
        "out_trade_no": number,
        "attach": "a=1",
        "notify_url": NOTIFY_URL,
        "amount": { "total": 1_000, "currency": "CNY" },
    })
}

pub fn refund_body(number: &str, refund: &str, minor: i64) -> Value {
    json!({
        "out_trade_no": number,
        "out_refund_no": refund,
        "notify_url": "https://example.com/refund",
        "amount": { "refund": minor, "total": 1_000, "currency": "CNY" },
    })
}

/// What stands after `pr=` in a `code_url`.
pub fn code_of(answer: &Value) -> String {
    let url = answer["code_url"].as_str().expect("a code_url");
    url.split_once("pr=").expect("a code in it").1.to_owned()
}
