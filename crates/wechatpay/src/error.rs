//! Errors as APIv3 answers them: status, code, message in two languages, detail.
//!
//! One constructor a refusal, in the order in which a server checks. Which check fails is decided
//! elsewhere. Codes and statuses are the protocol's and never change; wording may improve, except
//! where production's own text is known.

use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;

/// The language of messages. Chinese unless the caller asks for English.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    Zh,
    En,
}

impl Language {
    /// Reads `Accept-Language`: whichever of Chinese and English comes first; without either,
    /// Chinese.
    pub fn accepted(header: Option<&str>) -> Language {
        let tags = header.unwrap_or("").split(',').map(|it| it.trim().to_ascii_lowercase());
        for tag in tags {
            if tag.starts_with("zh") {
                return Language::Zh;
            }
            if tag.starts_with("en") {
                return Language::En;
            }
        }
        Language::Zh
    }

    /// As `Content-Language` has it.
    pub fn tag(self) -> &'static str {
        match self {
            Language::Zh => "zh-CN",
            Language::En => "en",
        }
    }
}

/// A sentence in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub zh: Cow<'static, str>,
    pub en: Cow<'static, str>,
}

impl Text {
    pub fn new(zh: impl Into<Cow<'static, str>>, en: impl Into<Cow<'static, str>>) -> Text {
        Text { zh: zh.into(), en: en.into() }
    }

    pub fn get(&self, language: Language) -> &str {
        match language {
            Language::Zh => &self.zh,
            Language::En => &self.en,
        }
    }
}

/// Where a refused field stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Body,
    Url,
    Query,
}

impl Location {
    pub fn word(self) -> &'static str {
        match self {
            Location::Body => "body",
            Location::Url => "url",
            Location::Query => "query",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// A field was refused: `field` is a JSON pointer such as `/amount/total`, or a name in the
    /// query; `value` what was sent, absent if nothing was.
    Field { field: String, value: Option<Value>, issue: Text, location: Location },
    /// The signature does not hold; here is what the server verified it against.
    Signature { method: String, url: String, message: String },
    /// What another server sent.
    Other(Value),
}

/// An error answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub status: u16,
    /// Empty where production answers no body: unknown path, method not allowed.
    pub code: Cow<'static, str>,
    pub message: Text,
    /// Boxed: errors are rare and answers are not, and both travel in one `Result`.
    pub detail: Option<Box<Detail>>,
    /// The number that ends `Request-ID`.
    pub reason: u32,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message.en)
    }
}

impl std::error::Error for ApiError {}

/// The numbers that end `Request-ID`, as production has them.
pub mod reason {
    pub const SUCCESS: u32 = 0;
    pub const ILLEGAL_PARAMETER: u32 = 268_435_461;
    pub const SIGNATURE: u32 = 268_443_699;
    pub const NO_RELATION: u32 = 268_443_701;
    pub const APPID_MCHID: u32 = 268_445_527;
    pub const RATE: u32 = 268_447_840;
    pub const FOREIGN_ORDER: u32 = 268_447_843;
    pub const ORDER_EXPIRED: u32 = 268_447_914;
    pub const RECEIVING_RESTRICTED: u32 = 268_448_010;
    pub const ALREADY_PAID: u32 = 268_449_538;
    pub const OTHER_PARAMETERS: u32 = 268_498_688;
    pub const OPENID_MISSING: u32 = 268_501_013;
    pub const NO_SUCH_ORDER: u32 = 268_512_771;
    pub const EXTRA_PARAMETERS: u32 = 270_924_358;
}

impl ApiError {
    pub fn new(
        status: u16,
        code: &'static str,
        zh: impl Into<Cow<'static, str>>,
        en: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        let reason = match status {
            401 => reason::SIGNATURE,
            429 => reason::RATE,
            _ => reason::ILLEGAL_PARAMETER,
        };
        ApiError { status, code: code.into(), message: Text::new(zh, en), detail: None, reason }
    }

    pub fn because(mut self, reason: u32) -> ApiError {
        self.reason = reason;
        self
    }

    // Checks 1 to 3: the request as such. Answered unsigned.

    /// Check 1. The answer has no body.
    pub fn unknown_path() -> ApiError {
        ApiError::new(404, "", "", "unknown path")
    }

    /// Check 2. The answer has no body.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(405, "", "", "method not allowed")
    }

    /// Check 3. Production does not insist on `/v3/pay/transactions/…`.
    pub fn accept_or_user_agent_missing() -> ApiError {
        ApiError::new(
            400,
            "INVALID_REQUEST",
            "Http头缺少Accept或User-Agent",
            "The HTTP header Accept or User-Agent is missing",
        )
    }

    // Checks 4 to 8: who calls. Answered unsigned.

    /// Check 4. Production words it differently under `/v3/pay/transactions/`.
    pub fn authorization_malformed(path: &str) -> ApiError {
        let zh = if path.starts_with("/v3/pay/transactions/") {
            "签名信息错误，验签失败"
        } else {
            "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"
        };
        let en = "The Authorization header is malformed; write SCHEME mchid=\"…\",nonce_str=\"…\",\
                  signature=\"…\",timestamp=\"…\",serial_no=\"…\"";
        ApiError::sign_error(zh, en)
    }

    /// Check 5.
    pub fn scheme_unknown() -> ApiError {
        ApiError::sign_error("认证类型不正确", "The authentication scheme is not supported")
    }

    /// Check 6.
    pub fn clock() -> ApiError {
        ApiError::sign_error(
            "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟",
            "The timestamp in Authorization is more than 5 minutes away from the time of the request; set your clock",
        )
    }

    /// Check 7: unknown merchant, unknown serial, or another merchant's.
    pub fn serial_wrong() -> ApiError {
        ApiError::sign_error(
            "商户证书序列号有误。请使用签名私钥匹配的证书序列号",
            "The serial number is not that of the merchant's certificate; use the one that belongs to the signing key",
        )
    }

    /// Check 7.
    pub fn certificate_expired() -> ApiError {
        ApiError::sign_error(
            "商户证书已过期",
            "The merchant's certificate has expired; request a new one",
        )
    }

    /// Check 7.
    pub fn certificate_revoked() -> ApiError {
        ApiError::sign_error(
            "商户证书已作废",
            "The merchant's certificate was revoked; request a new one",
        )
    }

    /// Check 7.
    pub fn certificate_replaced() -> ApiError {
        ApiError::sign_error(
            "商户证书已更换",
            "The merchant's certificate was replaced; use the new one",
        )
    }

    /// Check 7.
    pub fn certificate_none() -> ApiError {
        ApiError::sign_error(
            "商户未申请过证书",
            "The merchant has no certificate; request one first",
        )
    }

    /// Check 7.
    pub fn apiv3_key_unset() -> ApiError {
        ApiError::sign_error("商户未设置APIv3密钥", "The merchant has set no APIv3 key; set one")
    }

    /// Check 8. The three arguments are what the server verified against.
    pub fn signature_wrong(method: &str, path_and_query: &str, message: &[u8]) -> ApiError {
        let mut error = ApiError::sign_error(
            "签名错误",
            "The signature does not hold; compare detail.sign_information with what you signed",
        );
        error.detail = Some(Box::new(Detail::Signature {
            method: method.to_owned(),
            url: path_and_query.to_owned(),
            message: String::from_utf8_lossy(message).into_owned(),
        }));
        error
    }

    fn sign_error(zh: &'static str, en: &'static str) -> ApiError {
        ApiError::new(401, "SIGN_ERROR", zh, en)
    }

    // Checks 9 and 10: the parameters. From here on answers are signed.

    /// Check 9.
    pub fn mchid_mismatch(in_header: &str, in_body: &str) -> ApiError {
        let mut error = ApiError::new(
            400,
            "PARAM_ERROR",
            "http header中的mchid与post payload中的mchid不匹配",
            format!("mchid {in_header} in the HTTP header is not mchid {in_body} in the body"),
        );
        error.detail = Some(Box::new(Detail::Field {
            field: "/mchid".into(),
            value: Some(Value::from(in_body)),
            issue: error.message.clone(),
            location: Location::Body,
        }));
        error
    }

    /// Check 10. The issue is the message as well: it is the most useful sentence there is.
    pub fn param(
        location: Location,
        field: impl Into<String>,
        value: Option<Value>,
        issue: Text,
    ) -> ApiError {
        let mut error = ApiError::new(400, "PARAM_ERROR", issue.zh.clone(), issue.en.clone());
        error.detail =
            Some(Box::new(Detail::Field { field: field.into(), value, issue, location }));
        error
    }

    /// Check 10: the body is no JSON object.
    pub fn body_not_json(problem: &str) -> ApiError {
        let issue = Text::new(
            format!("请求体不是合法的JSON对象：{problem}"),
            format!("The body is not a JSON object: {problem}"),
        );
        ApiError::param(Location::Body, "", None, issue)
    }

    /// Check 10: encrypted fields without a word on the key.
    pub fn wechatpay_serial_missing() -> ApiError {
        ApiError::new(
            400,
            "PARAM_ERROR",
            "HTTP header缺少微信支付平台证书序列号(Wechatpay-Serial)",
            "The HTTP header Wechatpay-Serial is missing; it names the key of the encrypted fields",
        )
    }

    /// Check 10.
    pub fn wechatpay_serial_unknown() -> ApiError {
        ApiError::new(
            400,
            "PARAM_ERROR",
            "平台证书序列号Wechatpay-Serial错误",
            "Wechatpay-Serial is no serial number of a platform certificate nor a public key id",
        )
    }

    // Check 11: business.

    pub fn invalid_request(
        zh: impl Into<Cow<'static, str>>,
        en: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        ApiError::new(400, "INVALID_REQUEST", zh, en)
    }

    /// The number is taken by an order with other parameters.
    pub fn other_parameters() -> ApiError {
        ApiError::invalid_request(
            "请求重入时，参数与首次请求时不一致，请检查",
            "This number was used with other parameters; repeat it unchanged or take a new number",
        )
        .because(reason::OTHER_PARAMETERS)
    }

    pub fn appid_mchid_not_match() -> ApiError {
        ApiError::new(
            400,
            "APPID_MCHID_NOT_MATCH",
            "商户号和appid没有绑定关系",
            "The appid is not bound to the mchid; bind it first",
        )
        .because(reason::APPID_MCHID)
    }

    /// Orders: 400.
    pub fn mch_not_exists() -> ApiError {
        ApiError::new(400, "MCH_NOT_EXISTS", "商户号不存在", "The mchid does not exist")
    }

    /// Refunds: 404.
    pub fn refund_mch_not_exists() -> ApiError {
        ApiError { status: 404, ..ApiError::mch_not_exists() }
    }

    pub fn order_closed() -> ApiError {
        ApiError::new(
            400,
            "ORDER_CLOSED",
            "订单已关闭，请使用新的商户订单号下单",
            "The order is closed; place a new one under a new out_trade_no",
        )
    }

    pub fn no_auth() -> ApiError {
        ApiError::new(
            403,
            "NO_AUTH",
            "商户未开通此产品权限",
            "The merchant has no permission for this product; apply for it first",
        )
    }

    pub fn out_trade_no_used() -> ApiError {
        ApiError::new(
            403,
            "OUT_TRADE_NO_USED",
            "该订单已支付，商户订单号不可重复使用",
            "The order is paid; query it, or take a new out_trade_no",
        )
        .because(reason::ALREADY_PAID)
    }

    pub fn rule_limit() -> ApiError {
        ApiError::new(
            403,
            "RULE_LIMIT",
            "业务规则限制",
            "A rule forbids this; slow down or change the request",
        )
    }

    pub fn trade_error() -> ApiError {
        ApiError::new(403, "TRADE_ERROR", "交易错误", "The transaction is in no state for this")
    }

    pub fn request_blocked() -> ApiError {
        ApiError::new(
            403,
            "REQUEST_BLOCKED",
            "此请求被拦截",
            "The request is blocked; ask the operator why",
        )
    }

    pub fn account_error() -> ApiError {
        ApiError::new(
            403,
            "ACCOUNT_ERROR",
            "账号异常",
            "The account cannot be used; ask the operator why",
        )
        .because(reason::RECEIVING_RESTRICTED)
    }

    pub fn not_enough() -> ApiError {
        ApiError::new(
            403,
            "NOT_ENOUGH",
            "基本账户余额不足，请充值后重新发起",
            "The balance does not cover the refund; top up and repeat with the same number",
        )
    }

    pub fn user_account_abnormal() -> ApiError {
        ApiError::new(
            403,
            "USER_ACCOUNT_ABNORMAL",
            "用户账户异常，请自行处理退款",
            "The payer's account cannot take the refund; refund in another way",
        )
    }

    pub fn order_not_exist() -> ApiError {
        ApiError::new(404, "ORDER_NOT_EXIST", "订单不存在", "The order does not exist")
            .because(reason::NO_SUCH_ORDER)
    }

    pub fn resource_not_exists() -> ApiError {
        ApiError::new(
            404,
            "RESOURCE_NOT_EXISTS",
            "查询的资源不存在",
            "There is no such resource; check the number",
        )
    }

    /// `/v3/certificates` for a merchant in public-key mode.
    pub fn no_platform_certificate() -> ApiError {
        ApiError::new(
            404,
            "RESOURCE_NOT_EXISTS",
            "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥。",
            "There is no platform certificate; use the platform's public key instead",
        )
    }

    pub fn not_found() -> ApiError {
        ApiError::new(404, "NOT_FOUND", "请求的资源不存在", "There is no such resource")
    }

    pub fn no_statement_exist() -> ApiError {
        ApiError::new(
            400,
            "NO_STATEMENT_EXIST",
            "账单文件不存在，请检查当前商户号在指定日期内是否有交易",
            "There is no statement of that day: nothing was traded",
        )
    }

    pub fn statement_creating() -> ApiError {
        ApiError::new(
            400,
            "STATEMENT_CREATING",
            "账单正在生成，请稍后再试",
            "The statement is being made; try again after 10:00 Beijing time",
        )
    }

    pub fn frequency_limited() -> ApiError {
        ApiError::new(
            429,
            "FREQUENCY_LIMITED",
            "频率超限，请降低请求频率后使用原参数重试",
            "Too many requests; slow down and repeat with the same parameters",
        )
    }

    /// Older than a year. The status is not published; 400 here.
    pub fn trade_overdue() -> ApiError {
        ApiError::new(
            400,
            "TRADE_OVERDUE",
            "订单已经超过可退款的最大期限",
            "The order is too old to be refunded: the limit is one year",
        )
    }

    /// The outcome is unknown to the caller.
    pub fn system_error() -> ApiError {
        ApiError::new(
            500,
            "SYSTEM_ERROR",
            "系统异常，请使用相同参数稍后重新调用",
            "System error; the outcome is unknown: query, or repeat with the same parameters",
        )
    }

    /// The outcome is unknown to the caller.
    pub fn service_unavailable() -> ApiError {
        ApiError::new(
            503,
            "SERVICE_UNAVAILABLE",
            "服务不可用，请使用相同参数稍后重新调用",
            "Service unavailable; repeat later with the same parameters",
        )
    }

    /// Whether the answer carries the platform's signature: only from check 9 on.
    pub fn is_signed(&self) -> bool {
        let before_authentication = self.status == 401
            || self.code.is_empty()
            || self.message == ApiError::accept_or_user_agent_missing().message;
        !before_authentication
    }

    /// The body of the answer: JSON, or nothing for an unknown path or method.
    pub fn body(&self, language: Language) -> String {
        if self.code.is_empty() {
            return String::new();
        }
        let mut body = Map::new();
        body.insert("code".into(), Value::from(self.code.as_ref()));
        body.insert("message".into(), Value::from(self.message.get(language)));
        if let Some(detail) = &self.detail {
            body.insert("detail".into(), detail.json(language));
        }
        Value::Object(body).to_string()
    }

    /// Reads an error answer as a client. Total: a body that is no error object gives a code of
    /// `HTTP_` and the status, and its first 200 characters as message.
    pub fn parse(status: u16, body: &[u8]) -> ApiError {
        let same = |text: String| Text::new(text.clone(), text);
        let error = |code: String, message: String, detail| ApiError {
            status,
            code: code.into(),
            message: same(message),
            detail,
            reason: 0,
        };
        match serde_json::from_slice(body) {
            Ok(Value::Object(mut members)) if members.get("code").is_some_and(Value::is_string) => {
                let mut text = |name| match members.get_mut(name).map(Value::take) {
                    Some(Value::String(it)) => it,
                    _ => String::new(),
                };
                let (code, message) = (text("code"), text("message"));
                let detail = members
                    .remove("detail")
                    .filter(|it| !it.is_null())
                    .map(|it| Box::new(Detail::Other(it)));
                error(code, message, detail)
            }
            _ => {
                let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
                error(format!("HTTP_{status}"), text, None)
            }
        }
    }
}

/// The longest piece of a signing message that an error shows.
const SHOWN_MESSAGE: usize = 1_024;

impl Detail {
    fn json(&self, language: Language) -> Value {
        match self {
            Detail::Field { field, value, issue, location } => {
                let mut out = Map::new();
                out.insert("field".into(), Value::from(field.as_str()));
                if let Some(value) = value {
                    out.insert("value".into(), value.clone());
                }
                out.insert("issue".into(), Value::from(issue.get(language)));
                out.insert("location".into(), Value::from(location.word()));
                Value::Object(out)
            }
            Detail::Signature { method, url, message } => {
                let shown: String = message.chars().take(SHOWN_MESSAGE).collect();
                json!({
                    "issue": "sign not match",
                    "field": "signature",
                    "location": "authorization",
                    "sign_information": {
                        "method": method,
                        "url": url,
                        "truncated_sign_message": shown.replace('\n', "\\n"),
                        "sign_message_length": message.len(),
                    },
                })
            }
            Detail::Other(value) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_language_is_the_first_we_speak() {
        let check = |header, want| assert_eq!(Language::accepted(header), want, "{header:?}");
        check(None, Language::Zh);
        check(Some("en"), Language::En);
        check(Some("en-US,en;q=0.9,zh-CN;q=0.8"), Language::En);
        check(Some("fr, zh-HK"), Language::Zh);
        check(Some("*/*"), Language::Zh);
    }

    #[test]
    fn authentication_errors_are_unsigned_and_business_errors_signed() {
        assert!(!ApiError::clock().is_signed());
        assert!(!ApiError::unknown_path().is_signed());
        assert!(!ApiError::accept_or_user_agent_missing().is_signed());
        assert!(ApiError::order_not_exist().is_signed());
        assert!(ApiError::mchid_mismatch("1", "2").is_signed());
    }

    #[test]
    fn a_client_reads_what_a_server_wrote() {
        let sent = ApiError::order_not_exist();
        let read = ApiError::parse(404, sent.body(Language::Zh).as_bytes());
        assert_eq!((read.status, read.code), (404, sent.code));
        assert_eq!(read.message.zh, sent.message.zh);
        let gateway = ApiError::parse(502, b"<html>Bad Gateway</html>");
        assert_eq!(gateway.code, "HTTP_502");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(status in any::<u16>(), body in any::<Vec<u8>>()) {
            let _ = ApiError::parse(status, &body);
        }
    }
}
