//! The merchant API: paths, the ordered checks, the signed answer.

use super::answer::{SimAnswer, SimRequest};
use super::callbacks::with_unknown_state;
use super::dice::HEX;
use super::faults::{Call, Fault};
use super::sim::WechatSim;
use kernel::Timestamp;
use serde_json::Value;
use wechatpay::certificates::PlatformCertificate;
use wechatpay::error::{ApiError, Language, Location, Text};
use wechatpay::headers::{
    ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE, JSON, REQUEST_ID,
    SignatureHeaders, USER_AGENT, WECHATPAY_SERIAL,
};
use wechatpay::query::{Query, decode_segment};
use wechatpay::signing::{PROBE_PREFIX, is_fresh, request_message, scheme_of};
use wechatpay::{Authorization, CreateRefund, CreateTransaction, Product};
use wechatpay::{bill, certificates, create, refund};

/// An SDK's patience ends before this.
const NEVER_MS: u64 = 600_000;
/// What [`Fault::CallbackFirst`] holds the answer back.
const CALLBACK_FIRST_MS: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Create(Product),
    QueryByNumber(String),
    QueryById(String),
    Close(String),
    Refund,
    QueryRefund(String),
    Certificates,
    TradeBill,
    FundBill,
    Download,
}

impl Endpoint {
    fn call(&self) -> Call {
        match self {
            Endpoint::Create(_) => Call::Create,
            Endpoint::QueryByNumber(_) | Endpoint::QueryById(_) => Call::Query,
            Endpoint::Close(_) => Call::Close,
            Endpoint::Refund => Call::Refund,
            Endpoint::QueryRefund(_) => Call::QueryRefund,
            Endpoint::Certificates => Call::Certificates,
            Endpoint::TradeBill | Endpoint::FundBill => Call::Bill,
            Endpoint::Download => Call::Download,
        }
    }

    /// The endpoint at a path and the method it wants.
    fn at(path: &str) -> Option<(Endpoint, &'static str)> {
        if let Some(product) = Product::of_path(path) {
            return Some((Endpoint::Create(product), "POST"));
        }
        let segments: Vec<&str> = path.strip_prefix("/v3/")?.split('/').collect();
        let some = |it: &str| Some(decode_segment(it)).filter(|it| !it.is_empty());
        Some(match segments[..] {
            ["pay", "transactions", "out-trade-no", number] => {
                (Endpoint::QueryByNumber(some(number)?), "GET")
            }
            ["pay", "transactions", "out-trade-no", number, "close"] => {
                (Endpoint::Close(some(number)?), "POST")
            }
            ["pay", "transactions", "id", id] => (Endpoint::QueryById(some(id)?), "GET"),
            ["refund", "domestic", "refunds", number] => {
                (Endpoint::QueryRefund(some(number)?), "GET")
            }
            _ if path == refund::PATH => (Endpoint::Refund, "POST"),
            _ if path == certificates::PATH => (Endpoint::Certificates, "GET"),
            _ if path == bill::TRADE_PATH => (Endpoint::TradeBill, "GET"),
            _ if path == bill::FUND_FLOW_PATH => (Endpoint::FundBill, "GET"),
            _ if path == bill::DOWNLOAD_PATH => (Endpoint::Download, "GET"),
            _ => return None,
        })
    }
}

/// What an endpoint answers when it does not refuse.
enum Reply {
    Json(String),
    Nothing,
    File(Vec<u8>),
}

impl WechatSim {
    /// Answers one call of the merchant API.
    pub fn handle(&mut self, request: &SimRequest, wall_now: Timestamp) -> SimAnswer {
        let now = self.tick(wall_now);
        let language = Language::accepted(request.header(ACCEPT_LANGUAGE));
        let (endpoint, mchid) = match self.admit(request, wall_now) {
            Ok(it) => it,
            Err(error) => return self.finish(Err(error), request, language, wall_now, &[]),
        };
        let faults = self.faults.of_call(endpoint.call(), &mut self.dice);
        let delay_ms = faults.iter().fold(0, |sum: u64, it| match it {
            Fault::Delay { ms } => sum.saturating_add(*ms),
            Fault::CallbackFirst => sum.saturating_add(CALLBACK_FIRST_MS),
            _ => sum,
        });
        if faults.contains(&Fault::DropBefore) {
            return SimAnswer { delay_ms, drop: true, ..SimAnswer::default() };
        }
        let instead = faults.iter().find_map(|it| match it {
            Fault::ErrorBefore { status } => Some(broken(*status)),
            Fault::Refuse { code } => Some(refusal(code)),
            _ => None,
        });
        let mut reply = match instead {
            Some(error) => Err(error),
            None => self.perform(&endpoint, &mchid, request, now, &faults),
        };
        if faults.contains(&Fault::DropAfter) {
            return SimAnswer { delay_ms, drop: true, ..SimAnswer::default() };
        }
        if faults.contains(&Fault::NeverAnswer) {
            return SimAnswer { delay_ms: NEVER_MS, drop: true, ..SimAnswer::default() };
        }
        for it in &faults {
            if let Fault::ErrorAfter { status } = it {
                reply = Err(broken(*status));
            }
        }
        if faults.contains(&Fault::UnknownState)
            && let Ok(Reply::Json(json)) = &mut reply
        {
            *json = with_unknown_state(json);
        }
        let answer = self.finish(reply, request, language, wall_now, &faults);
        SimAnswer { delay_ms, ..answer }
    }

    /// Checks 1 to 8: what is called, and by whom.
    fn admit(
        &self,
        request: &SimRequest,
        wall_now: Timestamp,
    ) -> Result<(Endpoint, String), ApiError> {
        let path = request.path();
        let (endpoint, method) = Endpoint::at(path).ok_or_else(ApiError::unknown_path)?;
        if request.method != method {
            return Err(ApiError::method_not_allowed());
        }
        let present = |name| request.header(name).is_some_and(|it| !it.is_empty());
        let lenient = path.starts_with("/v3/pay/transactions/");
        if !lenient && (!present(ACCEPT) || !present(USER_AGENT)) {
            return Err(ApiError::accept_or_user_agent_missing());
        }
        let authorization = Authorization::parse(request.header(AUTHORIZATION).unwrap_or(""))
            .map_err(|_| ApiError::authorization_malformed(path))?;
        let scheme = scheme_of(&authorization.scheme).ok_or_else(ApiError::scheme_unknown)?;
        if !is_fresh(authorization.timestamp, wall_now) {
            return Err(ApiError::clock());
        }
        let merchant = self.merchants.iter().find(|it| {
            it.facts.mchid == authorization.mchid
                && seal::same_serial(&it.facts.serial, &authorization.serial)
        });
        let merchant = merchant.ok_or_else(ApiError::serial_wrong)?;
        let target = &request.path_and_query;
        let message = |target: &str| {
            let Authorization { timestamp, nonce, .. } = &authorization;
            request_message(method, target, *timestamp, nonce, &request.body)
        };
        let holds = |target: &str| {
            merchant.verifier.verify_base64(&message(target), &authorization.signature)
        };
        // One SDK signs `|` raw and sends it escaped.
        let raw = || target.replace("%7C", "|").replace("%7c", "|");
        if merchant.verifier.scheme() != scheme || !(holds(target) || holds(&raw())) {
            return Err(ApiError::signature_wrong(method, target, &message(target)));
        }
        Ok((endpoint, authorization.mchid))
    }

    /// Checks 9 to 11, and what is asked.
    fn perform(
        &mut self,
        endpoint: &Endpoint,
        mchid: &str,
        request: &SimRequest,
        now: Timestamp,
        faults: &[Fault],
    ) -> Result<Reply, ApiError> {
        let query = Query::of_target(&request.path_and_query);
        let json = match endpoint {
            Endpoint::Create(product) => {
                check_body_mchid(mchid, &request.body)?;
                let order = CreateTransaction::parse(*product, &request.body)?;
                self.create(order, now, faults)?
            }
            Endpoint::QueryByNumber(number) => {
                check_query_mchid(mchid, &query)?;
                self.query(self.find_number(mchid, number))?
            }
            Endpoint::QueryById(id) => {
                check_query_mchid(mchid, &query)?;
                self.query(self.find_transaction(mchid, id))?
            }
            Endpoint::Close(number) => {
                check_body_mchid(mchid, &request.body)?;
                create::parse_close(&request.body)?;
                self.close(mchid, number)?;
                return Ok(Reply::Nothing);
            }
            Endpoint::Refund => {
                let refund = CreateRefund::parse(&request.body)?;
                self.create_refund(mchid, refund, now, faults)?
            }
            Endpoint::QueryRefund(number) => self.query_refund(mchid, number)?,
            Endpoint::Certificates => self.certificates(mchid)?,
            Endpoint::TradeBill => self.trade_bill(mchid, &query, now)?,
            Endpoint::FundBill => self.fund_bill(mchid, &query, now)?,
            Endpoint::Download => return self.download(mchid, &query, now).map(Reply::File),
        };
        Ok(Reply::Json(json))
    }

    fn query(&self, found: Option<usize>) -> Result<String, ApiError> {
        let index = found.ok_or_else(ApiError::order_not_exist)?;
        Ok(self.transaction(index).to_json())
    }

    fn certificates(&mut self, mchid: &str) -> Result<String, ApiError> {
        let Some(certificate) = &self.platform.certificate else {
            return Err(ApiError::no_platform_certificate());
        };
        let listed = PlatformCertificate {
            serial_no: certificate.serial().to_owned(),
            effective_time: certificate.not_before(),
            expire_time: certificate.not_after(),
            pem: certificate.pem().to_owned(),
        };
        let nonce = self.new_gcm_nonce();
        let key = &self.merchant(mchid).facts.apiv3_key;
        let list = certificates::render(&[(listed, nonce)], key);
        Ok(list.expect("nonces are made with 12 characters"))
    }

    /// Status, headers and, where the protocol wants it, the platform's signature.
    fn finish(
        &mut self,
        reply: Result<Reply, ApiError>,
        request: &SimRequest,
        language: Language,
        wall_now: Timestamp,
        faults: &[Fault],
    ) -> SimAnswer {
        let (status, content_type, body, signed, reason) = match reply {
            Ok(Reply::Json(json)) => (200, JSON, json.into_bytes(), true, 0),
            Ok(Reply::Nothing) => (204, "", Vec::new(), true, 0),
            Ok(Reply::File(bytes)) => (200, "application/octet-stream", bytes, false, 0),
            Err(error) if error.status == 502 => {
                (502, "text/html", b"<html><h1>502 Bad Gateway</h1></html>".to_vec(), false, 0)
            }
            Err(error) => {
                let body = error.body(language).into_bytes();
                let content_type = if body.is_empty() { "" } else { JSON };
                (error.status, content_type, body, error.is_signed(), error.reason)
            }
        };
        let mut headers = Vec::with_capacity(10);
        if !content_type.is_empty() {
            headers.push((CONTENT_TYPE, content_type.to_owned()));
        }
        let id = self.dice.text(HEX, 44).to_ascii_uppercase();
        headers.push((REQUEST_ID, format!("{id}-{reason}")));
        headers.push(("cache-control", "no-cache, must-revalidate".to_owned()));
        headers.push(("x-content-type-options", "nosniff".to_owned()));
        headers.push((CONTENT_LANGUAGE, language.tag().to_owned()));
        if signed {
            let nonce = self.new_nonce();
            let key = self.platform.ring.signer_for(request.header(WECHATPAY_SERIAL));
            let seconds = wall_now.seconds();
            let mut signature =
                SignatureHeaders::sign(&key.signer, &key.id, seconds, &nonce, &body);
            if faults.contains(&Fault::BadSignature) {
                signature.signature.insert_str(0, PROBE_PREFIX);
            }
            headers.extend(signature.pairs());
        }
        SimAnswer { status, headers, body, delay_ms: 0, drop: false }
    }
}

/// Check 9 comes before the fields: a body whose `mchid` is absent or no text is left to them.
fn check_body_mchid(mchid: &str, body: &[u8]) -> Result<(), ApiError> {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    match value.get("mchid").and_then(Value::as_str) {
        Some(sent) if sent != mchid => Err(ApiError::mchid_mismatch(mchid, sent)),
        _ => Ok(()),
    }
}

fn check_query_mchid(mchid: &str, query: &Query) -> Result<(), ApiError> {
    let refuse = |value: Option<&str>, issue| {
        ApiError::param(Location::Query, "mchid", value.map(Value::from), issue)
    };
    match query.get("mchid") {
        Some(sent) if sent == mchid => Ok(()),
        Some(sent) => Err(refuse(Some(sent), ApiError::mchid_mismatch(mchid, sent).message)),
        None => {
            let issue = Text::new("查询参数mchid为必填项", "mchid is required in the query");
            Err(refuse(None, issue))
        }
    }
}

fn broken(status: u16) -> ApiError {
    match status {
        502 => ApiError { status: 502, ..ApiError::service_unavailable() },
        503 => ApiError::service_unavailable(),
        _ => ApiError::system_error(),
    }
}

/// The refusal of a code; one we do not know is an INVALID_REQUEST that names it.
fn refusal(code: &str) -> ApiError {
    let all = [
        ApiError::appid_mchid_not_match(),
        ApiError::mch_not_exists(),
        ApiError::order_closed(),
        ApiError::no_auth(),
        ApiError::out_trade_no_used(),
        ApiError::rule_limit(),
        ApiError::trade_error(),
        ApiError::request_blocked(),
        ApiError::account_error(),
        ApiError::not_enough(),
        ApiError::user_account_abnormal(),
        ApiError::order_not_exist(),
        ApiError::resource_not_exists(),
        ApiError::no_statement_exist(),
        ApiError::statement_creating(),
        ApiError::frequency_limited(),
        ApiError::trade_overdue(),
        ApiError::system_error(),
        ApiError::service_unavailable(),
    ];
    let found = all.into_iter().find(|it| it.code == code);
    found.unwrap_or_else(|| {
        let words = format!("refused on demand with code {code}");
        ApiError::invalid_request(words.clone(), words)
    })
}
