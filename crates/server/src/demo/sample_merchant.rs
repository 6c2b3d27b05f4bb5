//! A merchant as it is out there: signs its requests, verifies and decrypts notifications.

use crate::cli::Fault;
use crate::clock;
use crate::gateway::Gateway;
use crate::install::MerchantFiles;
use http::{HeaderMap, StatusCode};
use seal::{Signer, Verifier};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wechatpay::headers::{self, SignatureHeaders};
use wechatpay::notification::Envelope;
use wechatpay::signing::{SCHEME_RSA, request_message};
use wechatpay::{Apiv3Key, Authorization};

pub struct SampleMerchant {
    client: reqwest::Client,
    base_url: String,
    signer: Signer,
    serial: String,
    apiv3_key: Apiv3Key,
    platform: Verifier,
    /// By order number, what the notification said.
    heard: Mutex<HashMap<String, String>>,
}

impl SampleMerchant {
    pub fn new(
        base_url: &str,
        gateway: &Gateway,
        files: &MerchantFiles,
    ) -> Result<SampleMerchant, Fault> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(15))
            .build()?;
        Ok(SampleMerchant {
            client,
            base_url: base_url.to_owned(),
            signer: Signer::from_pem(&fs::read_to_string(&files.private_key)?)?,
            serial: files.serial.clone(),
            apiv3_key: Apiv3Key::parse(fs::read_to_string(&files.apiv3_key)?.trim())?,
            platform: gateway.certificate().verifier(),
            heard: Mutex::default(),
        })
    }

    pub fn serial(&self) -> &str {
        &self.serial
    }

    pub async fn create(&self, order_no: &str, minor: i64) -> Result<Value, Fault> {
        let body = json!({
            "appid": super::APPID,
            "mchid": super::MERCHANT,
            "description": "演示商品 Demo goods",
            "out_trade_no": order_no,
            "notify_url": format!("{}/demo/notify", self.base_url),
            "amount": { "total": minor, "currency": "CNY" },
        });
        self.call("POST", "/v3/pay/transactions/native", body.to_string()).await
    }

    pub async fn query(&self, order_no: &str) -> Result<Value, Fault> {
        let mchid = super::MERCHANT;
        let path = format!("/v3/pay/transactions/out-trade-no/{order_no}?mchid={mchid}");
        self.call("GET", &path, String::new()).await
    }

    /// A signed request; the answer's signature is verified.
    async fn call(&self, method: &str, path: &str, body: String) -> Result<Value, Fault> {
        let (timestamp, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let message = request_message(method, path, timestamp, &nonce, body.as_bytes());
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: super::MERCHANT.into(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: self.signer.sign_base64(&message),
        };
        let url = format!("{}{path}", self.base_url);
        let request = match method {
            "GET" => self.client.get(url),
            _ => self.client.post(url).header(headers::CONTENT_TYPE, "application/json").body(body),
        };
        let request = request
            .header(headers::AUTHORIZATION, authorization.render())
            .header(headers::ACCEPT, "application/json")
            .header(headers::USER_AGENT, "feiqian-demo");
        let response = request.send().await?;
        let (status, list) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        if !status.is_success() {
            let said = String::from_utf8_lossy(&bytes);
            return Err(format!("{method} {path} was answered {status}: {said}").into());
        }
        if !self.is_authentic(&list, &bytes) {
            return Err(
                format!("the answer to {method} {path} is not signed by the platform").into()
            );
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn is_authentic(&self, list: &HeaderMap, body: &[u8]) -> bool {
        let get = |name: &str| list.get(name).and_then(|it| it.to_str().ok());
        SignatureHeaders::read(get).is_ok_and(|it| it.holds(&self.platform, body))
    }

    /// What a payer does in the wallet, through the simulator's control API.
    pub async fn confirm(&self, simulator: &str, code: &str) -> Result<(), Fault> {
        let body = json!({ "code": code, "outcome": "success" }).to_string();
        let url = format!("{simulator}/_sim/confirm");
        let request = self.client.post(url).header(headers::CONTENT_TYPE, "application/json");
        let response = request.body(body).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the wallet refuses: {status} {}", response.text().await?).into())
    }

    /// Takes a notification as WeChat Pay's guide asks: verify, decrypt, then answer.
    pub fn notified(&self, list: &HeaderMap, body: &[u8]) -> (StatusCode, String) {
        let refuse =
            |why: &str| (StatusCode::BAD_REQUEST, wechatpay::notification::refused_body(why));
        if !self.is_authentic(list, body) {
            return refuse("signature");
        }
        let opened = Envelope::parse(body)
            .and_then(|it| Ok((it.event_type.word().to_owned(), it.open(&self.apiv3_key)?)));
        let Ok((event, plain)) = opened else { return refuse("envelope") };
        let Ok(said) = serde_json::from_slice::<Value>(&plain) else { return refuse("payload") };
        let order_no = said["out_trade_no"].as_str().unwrap_or("").to_owned();
        let words = format!("{event} {order_no} {}", said["amount"]);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(order_no, words);
        (StatusCode::OK, wechatpay::notification::accepted_body())
    }

    pub fn heard(&self, order_no: &str) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(order_no).cloned()
    }
}
