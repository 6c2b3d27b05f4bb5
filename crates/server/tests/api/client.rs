//! A running demo and merchants that sign by hand, rightly or wrongly.

use kernel::{BasisPoints, MerchantId, Timestamp};
use payments::{LatePolicy, Mode};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use seal::{Signer, Verifier};
use serde_json::{Value, json};
use server::demo::Demo;
use server::install::{MerchantFiles, NewMerchant, add_merchant};
use std::path::{Path, PathBuf};
use wechatpay::headers::SignatureHeaders;
use wechatpay::signing::{SCHEME_RSA, request_message};
use wechatpay::{Authorization, headers};

pub const APPID: &str = "wx2421b1c4370ec43b";

/// A demo of its own, gone when dropped.
pub struct House {
    pub demo: Demo,
    folder: Folder,
}

struct Folder(PathBuf);

impl House {
    pub async fn start() -> House {
        House::start_with("").await
    }

    /// With more text in its configuration.
    pub async fn start_with(more: &str) -> House {
        let folder = std::env::temp_dir().join(format!("feiqian-api-{}", seal::random_nonce()));
        server::demo::prepare(&folder, "http://127.0.0.1:8080").unwrap();
        let file = folder.join("feiqian.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text + more).unwrap();
        let demo = Demo::start(&folder, 0).await.expect("the demo starts");
        House { demo, folder: Folder(folder) }
    }

    /// Ends, changes a line of the configuration, and starts on the same data.
    pub async fn restart(self, line: &str, other: &str) -> House {
        let House { demo, folder } = self;
        demo.end().await;
        let file = folder.0.join("feiqian.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(line), "{text}");
        std::fs::write(&file, text.replace(line, other)).unwrap();
        let demo = Demo::start(&folder.0, 0).await.expect("the demo starts again");
        House { demo, folder }
    }

    /// A new merchant with keys of its own.
    pub async fn merchant(&self, id: &str, mode: Mode) -> Client {
        let gateway = &self.demo.gateway;
        let new = NewMerchant {
            id: MerchantId::parse(id).unwrap(),
            name: format!("Merchant {id}"),
            appid: APPID.into(),
            fee_rate: BasisPoints::new(60).unwrap(),
            mode,
            late: LatePolicy::Refund,
        };
        let files = add_merchant(&gateway.config, gateway.store(), &new).await.unwrap();
        Client::new(id, &self.demo.base_url, &files)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Files may still be open; the folder is in the place for temporary ones.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub base_url: String,
    pub mchid: String,
    pub serial: String,
    pub signer: Signer,
    pub verifier: seal::Verifier,
    /// Instead of fresh ones.
    pub nonce: Option<String>,
    pub timestamp: Option<i64>,
    /// The platform key that answers are to be signed with.
    pub wants: Option<String>,
    /// The trace that the merchant's own request belongs to.
    pub traceparent: Option<String>,
}

pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub is_signed: bool,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Client {
    /// A merchant with the files that it was given.
    pub fn new(id: &str, base_url: &str, files: &MerchantFiles) -> Client {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        Client {
            http: reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap(),
            base_url: base_url.into(),
            mchid: id.into(),
            serial: files.serial.clone(),
            signer: Signer::from_pem(&read(&files.private_key)).unwrap(),
            verifier: Verifier::from_certificate_pem(&read(&files.platform_certificate)).unwrap(),
            nonce: None,
            timestamp: None,
            wants: None,
            traceparent: None,
        }
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send("GET", path, Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Got {
        self.send("POST", path, body.to_string().into_bytes()).await
    }

    pub async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Got {
        let now = server::clock::wall().seconds();
        let timestamp = self.timestamp.unwrap_or(now);
        let nonce = self.nonce.clone().unwrap_or_else(seal::random_nonce);
        let message = request_message(method, path, timestamp, &nonce, &body);
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: self.mchid.clone(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: self.signer.sign_base64(&message),
        };
        self.send_as(method, path, body, Some(authorization.render())).await
    }

    pub async fn send_as(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        authorization: Option<String>,
    ) -> Got {
        let url = format!("{}{path}", self.base_url);
        let mut request = self
            .http
            .request(method.parse().unwrap(), url)
            .header(headers::ACCEPT, "application/json")
            .header(headers::USER_AGENT, "test");
        if let Some(it) = authorization {
            request = request.header(headers::AUTHORIZATION, it);
        }
        if let Some(it) = &self.wants {
            request = request.header(headers::WECHATPAY_SERIAL, it);
        }
        if let Some(it) = &self.traceparent {
            request = request.header("traceparent", it);
        }
        let response = request.body(body).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        let get = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
        let is_signed = match SignatureHeaders::read(get) {
            Err(_) => false,
            Ok(it) => {
                assert!(it.holds(&self.verifier, &body), "a signature that does not hold");
                true
            }
        };
        Got { status, headers, body, is_signed }
    }

    pub fn order(&self, order_no: &str, minor: i64) -> Value {
        json!({
            "appid": APPID,
            "mchid": self.mchid,
            "description": "测试商品",
            "out_trade_no": order_no,
            "notify_url": format!("{}/demo/notify", self.base_url),
            "amount": { "total": minor, "currency": "CNY" },
        })
    }

    pub async fn query(&self, order_no: &str) -> Got {
        let mchid = &self.mchid;
        self.get(&format!("/v3/pay/transactions/out-trade-no/{order_no}?mchid={mchid}")).await
    }

    /// Until the order's state is `wanted`; gives the order.
    pub async fn until(&self, order_no: &str, wanted: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..400 {
            last = self.query(order_no).await.json();
            if last["trade_state"] == wanted {
                return last;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("{order_no} never became {wanted}: {last}");
    }
}

/// The simulator's order behind a code or for a payer to pay.
pub fn pay(house: &House, code: &str, outcome: testkit::wechat::Outcome) {
    let now = server::clock::wall();
    house.demo.simulator.with(|sim| {
        sim.confirm(testkit::wechat::Reference::Code(code), outcome, None, now).unwrap();
    });
}

pub fn rfc3339(at: Timestamp) -> String {
    wechatpay::beijing::rfc3339(at)
}
