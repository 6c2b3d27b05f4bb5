//! `feiqian serve` as a process of its own, and merchants that sign.

use kernel::{BasisPoints, MerchantId};
use payments::{LatePolicy, Mode};
use reqwest::Response;
use seal::Signer;
use serde_json::{Value, json};
use server::config::Config;
use server::gateway::open_store;
use server::install::{NewMerchant, add_merchant};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store::SqliteStore;
use wechatpay::Authorization;
use wechatpay::signing::{SCHEME_RSA, request_message};

pub const APPID: &str = "wx2421b1c4370ec43b";
/// Whatever is waited for is there long before.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct House {
    pub folder: PathBuf,
    pub port: u16,
    pub child: Child,
    pub merchants: Vec<Merchant>,
}

#[derive(Clone)]
pub struct Merchant {
    pub http: reqwest::Client,
    pub base_url: String,
    pub mchid: String,
    serial: String,
    signer: Signer,
}

impl House {
    /// With one lazy merchant for each number; `limits` goes into `[limits]`.
    pub async fn start(mchids: &[&str], limits: &str) -> House {
        let folder = std::env::temp_dir().join(format!("feiqian-live-{}", seal::random_nonce()));
        let port = testkit::ports::free_port();
        let base_url = format!("http://127.0.0.1:{port}");
        server::demo::prepare(&folder, &base_url).unwrap();
        let file = folder.join("feiqian.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
        let (text, _) = text.split_once("\n[limits]").expect("the demo writes its limits last");
        std::fs::write(&file, format!("{text}\n[limits]\n{limits}")).unwrap();
        let config = Config::load(&file).unwrap();
        let store = open_store(&config).await.unwrap();
        let mut merchants = Vec::new();
        for mchid in mchids {
            let new = NewMerchant {
                id: MerchantId::parse(mchid).unwrap(),
                name: format!("Merchant {mchid}"),
                appid: APPID.into(),
                fee_rate: BasisPoints::new(60).unwrap(),
                mode: Mode::Lazy,
                late: LatePolicy::Refund,
            };
            let files = add_merchant(&config, &store, &new).await.unwrap();
            let pem = std::fs::read_to_string(files.private_key).unwrap();
            merchants.push(Merchant {
                http: reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap(),
                base_url: base_url.clone(),
                mchid: (*mchid).into(),
                serial: files.serial,
                signer: Signer::from_pem(&pem).unwrap(),
            });
        }
        drop(store);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_feiqian"))
            .args(["serve", "--plain-http-channels", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let house = House { folder, port, child, merchants };
        house.until_logged("feiqian serves").await;
        house
    }

    pub fn file(&self) -> PathBuf {
        self.folder.join("feiqian.toml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub async fn until_logged(&self, words: &str) {
        let started = std::time::Instant::now();
        while !self.log().contains(words) {
            assert!(started.elapsed() < PATIENCE, "never said {words:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Changes a line of the configuration.
    #[track_caller]
    pub fn edit(&self, line: &str, other: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(line), "{line} is not in {text}");
        std::fs::write(self.file(), text.replacen(line, other, 1)).unwrap();
    }

    /// Has the process read its configuration again, and waits until it said `words` once more.
    pub async fn hang_up(&self, words: &str) {
        let before = self.log().matches(words).count();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        let started = std::time::Instant::now();
        while self.log().matches(words).count() == before {
            assert!(started.elapsed() < PATIENCE, "never said {words:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.folder.join("feiqian.db")).unwrap()
    }

    /// Memory that the process holds, in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(Path::new(&path)).unwrap();
        let line = text.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // It lies in the place for temporary files.
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Merchant {
    pub fn order(&self, order_no: &str, minor: i64) -> Value {
        json!({
            "appid": APPID,
            "mchid": self.mchid,
            "description": "测试商品",
            "out_trade_no": order_no,
            "notify_url": "https://shop.example/notify",
            "amount": { "total": minor, "currency": "CNY" },
        })
    }

    pub fn authorization(&self, method: &str, path: &str, body: &[u8]) -> String {
        let (timestamp, nonce) = (server::clock::wall().seconds(), seal::random_nonce());
        let message = request_message(method, path, timestamp, &nonce, body);
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: self.mchid.clone(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: self.signer.sign_base64(&message),
        };
        authorization.render()
    }

    /// A native create as bytes for a connection.
    pub fn create_bytes(&self, order_no: &str) -> Vec<u8> {
        let path = "/v3/pay/transactions/native";
        let body = self.order(order_no, 100).to_string();
        let authorization = self.authorization("POST", path, body.as_bytes());
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nAccept: */*\r\n\
             User-Agent: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    pub async fn create(&self, order_no: &str, minor: i64) -> Response {
        let path = "/v3/pay/transactions/native";
        self.send("POST", path, self.order(order_no, minor).to_string(), |it| it).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send("GET", path, String::new(), |it| it).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
        more: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Response {
        let authorization = self.authorization(method, path, body.as_bytes());
        let request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.base_url))
            .header("authorization", authorization)
            .header("accept", "application/json")
            .header("user-agent", "test");
        more(request).body(body).send().await.unwrap()
    }
}

/// Status and code of a refusal.
pub async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or("").to_owned())
}
