//! Which endpoint a path names. 404 and 405 are decided before anything else is looked at.

use wechatpay::query::decode_segment;
use wechatpay::{ApiError, Product};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Create(Product),
    QueryById(String),
    QueryByNumber(String),
    Close(String),
    RefundCreate,
    RefundQuery(String),
    Certificates,
    TradeBill,
    FundBill,
    BillDownload,
    Cashier,
    Routing(String),
    Notifications,
    Replay(String),
}

impl Endpoint {
    /// Orders do not insist on `Accept` and `User-Agent`; the rest does.
    pub fn wants_agent(&self) -> bool {
        !matches!(
            self,
            Endpoint::Create(_)
                | Endpoint::QueryById(_)
                | Endpoint::QueryByNumber(_)
                | Endpoint::Close(_)
        )
    }
}

/// The fixed name of the endpoint that a request names, for figures.
pub(crate) fn name(method: &str, path: &str) -> &'static str {
    match find(method, path) {
        Ok(Endpoint::Create(Product::Native)) => "create_native",
        Ok(Endpoint::Create(Product::Jsapi)) => "create_jsapi",
        Ok(Endpoint::Create(Product::App)) => "create_app",
        Ok(Endpoint::Create(Product::H5)) => "create_h5",
        Ok(Endpoint::QueryById(_)) => "query_by_id",
        Ok(Endpoint::QueryByNumber(_)) => "query_by_number",
        Ok(Endpoint::Close(_)) => "close",
        Ok(Endpoint::RefundCreate) => "refund_create",
        Ok(Endpoint::RefundQuery(_)) => "refund_query",
        Ok(Endpoint::Certificates) => "certificates",
        Ok(Endpoint::TradeBill) => "trade_bill",
        Ok(Endpoint::FundBill) => "fund_bill",
        Ok(Endpoint::BillDownload) => "bill_download",
        Ok(Endpoint::Cashier) => "cashier_create",
        Ok(Endpoint::Routing(_)) => "routing",
        Ok(Endpoint::Notifications) => "notifications",
        Ok(Endpoint::Replay(_)) => "notification_replay",
        Err(_) => "v3_unknown",
    }
}

/// - Errors: 404 for an unknown path, 405 for a known one with another method.
pub fn find(method: &str, path: &str) -> Result<Endpoint, ApiError> {
    let segments: Vec<&str> = path.trim_start_matches("/v3/").split('/').collect();
    let name = |it: &str| decode_segment(it);
    let (wanted, endpoint) = match segments.as_slice() {
        ["pay", "transactions", "id", id] => ("GET", Endpoint::QueryById(name(id))),
        ["pay", "transactions", "out-trade-no", number] => {
            ("GET", Endpoint::QueryByNumber(name(number)))
        }
        ["pay", "transactions", "out-trade-no", number, "close"] => {
            ("POST", Endpoint::Close(name(number)))
        }
        ["pay", "transactions", product] => {
            let named = Product::ALL.into_iter().find(|it| it.name() == *product);
            ("POST", Endpoint::Create(named.ok_or_else(ApiError::unknown_path)?))
        }
        ["refund", "domestic", "refunds"] => ("POST", Endpoint::RefundCreate),
        ["refund", "domestic", "refunds", number] => ("GET", Endpoint::RefundQuery(name(number))),
        ["certificates"] => ("GET", Endpoint::Certificates),
        ["bill", "tradebill"] => ("GET", Endpoint::TradeBill),
        ["bill", "fundflowbill"] => ("GET", Endpoint::FundBill),
        ["billdownload", "file"] => ("GET", Endpoint::BillDownload),
        ["feiqian", "cashier"] => ("POST", Endpoint::Cashier),
        ["feiqian", "payments", number, "routing"] => ("GET", Endpoint::Routing(name(number))),
        ["feiqian", "notifications"] => ("GET", Endpoint::Notifications),
        ["feiqian", "notifications", id, "replay"] => ("POST", Endpoint::Replay(name(id))),
        _ => return Err(ApiError::unknown_path()),
    };
    if method == wanted { Ok(endpoint) } else { Err(ApiError::method_not_allowed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints() {
        let check = |method, path, want: Result<Endpoint, u16>| {
            assert_eq!(find(method, path).map_err(|it| it.status), want, "{method} {path}");
        };
        let by_number = "/v3/pay/transactions/out-trade-no/T%7C1";
        check("GET", by_number, Ok(Endpoint::QueryByNumber("T|1".into())));
        check("POST", by_number, Err(405));
        check("POST", "/v3/pay/transactions/native", Ok(Endpoint::Create(Product::Native)));
        check("POST", "/v3/pay/transactions/cash", Err(404));
        check("GET", "/v3/pay/transactions/native", Err(405));
        check("GET", "/v3/certificates", Ok(Endpoint::Certificates));
        check("GET", "/v3/certificates/", Err(404));
        check("GET", "/v3/", Err(404));
    }
}
