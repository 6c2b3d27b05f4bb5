//! The client side of a benchmark: requests signed in advance, a connection that costs little, and
//! what RSA alone could do.

use super::report::{Tally, cpu_cores};
use crate::cli::Fault;
use crate::clock;
use crate::install::MerchantFiles;
use seal::{Signer, Verifier};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wechatpay::Authorization;
use wechatpay::headers::SignatureHeaders;
use wechatpay::signing::{SCHEME_RSA, request_message};

/// A request, ready to be written.
pub struct Signed {
    pub order_no: String,
    pub bytes: Vec<u8>,
    message: Vec<u8>,
    signature: String,
}

/// How fast all cores together sign and verify.
#[derive(Default)]
pub struct RsaLimit {
    pub sign: Tally,
    pub verify: Tally,
}

impl RsaLimit {
    /// Operations a second that cost so many signatures and verifications and nothing else.
    pub fn per_s(&self, signs: u32, verifies: u32) -> f64 {
        1.0 / (f64::from(signs) / self.sign.rate() + f64::from(verifies) / self.verify.rate())
    }
}

/// A merchant's keys, and the platform's to verify answers with.
pub struct Signing {
    mchid: &'static str,
    serial: String,
    signer: Signer,
    own: Verifier,
    platform: Verifier,
}

const PATH: &str = "/v3/pay/transactions/native";

impl Signing {
    pub fn new(
        mchid: &'static str,
        files: &MerchantFiles,
        platform: Verifier,
    ) -> Result<Signing, Fault> {
        let signer = Signer::from_pem(&std::fs::read_to_string(&files.private_key)?)?;
        let own = signer.verifier();
        Ok(Signing { mchid, serial: files.serial.clone(), signer, own, platform })
    }

    fn order_no(number: usize) -> String {
        format!("BENCH{number:010}")
    }

    /// A native create.
    pub fn create(&self, order_no: &str, notify_url: &str) -> Signed {
        let appid = crate::demo::APPID;
        let mchid = self.mchid;
        let body = format!(
            r#"{{"appid":"{appid}","mchid":"{mchid}","description":"测试商品 Bench","out_trade_no":"{order_no}","notify_url":"{notify_url}","amount":{{"total":100,"currency":"CNY"}}}}"#
        );
        let (timestamp, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let message = request_message("POST", PATH, timestamp, &nonce, body.as_bytes());
        let signature = self.signer.sign_base64(&message);
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: mchid.into(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: signature.clone(),
        };
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: {}\r\nAccept: application/json\r\n\
             User-Agent: feiqian-bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            authorization.render(),
            body.len()
        );
        let bytes = [head.into_bytes(), body.into_bytes()].concat();
        Signed { order_no: order_no.into(), bytes, message, signature }
    }

    /// Signs `count` creates from number `first` on all cores, then verifies a tenth of them, and
    /// adds how long each took.
    pub fn sign(&self, first: usize, count: usize, limit: &mut RsaLimit) -> Vec<Signed> {
        let threads = cpu_cores();
        let share = count.div_ceil(threads);
        let start = Instant::now();
        let signed: Vec<Signed> = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|it| {
                    let from = first + (it * share).min(count);
                    let until = first + ((it + 1) * share).min(count);
                    scope.spawn(move || {
                        let one =
                            |it| self.create(&Self::order_no(it), "https://shop.example/notify");
                        (from..until).map(one).collect::<Vec<_>>()
                    })
                })
                .collect();
            parts.into_iter().flat_map(|it| it.join().expect("signing does not panic")).collect()
        });
        limit.sign.add(start.elapsed(), signed.len() as u64);

        let tested = &signed[..signed.len().div_ceil(10).min(signed.len())];
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in tested.chunks(tested.len().div_ceil(threads).max(1)) {
                scope.spawn(move || {
                    let holds = |it: &Signed| self.own.verify_base64(&it.message, &it.signature);
                    assert!(part.iter().all(holds), "a signature made a moment ago must hold");
                });
            }
        });
        limit.verify.add(start.elapsed(), tested.len() as u64);
        signed
    }

    /// Whether a whole HTTP answer is signed by the platform.
    pub fn is_authentic(&self, answer: &[u8]) -> bool {
        let Some(end) = head_end(answer) else { return false };
        let Ok(head) = std::str::from_utf8(&answer[..end]) else { return false };
        let get = |name: &str| {
            let named = |line: &&str| {
                line.split_once(':').is_some_and(|it| it.0.eq_ignore_ascii_case(name))
            };
            head.lines().find(named).and_then(|it| it.split_once(':')).map(|it| it.1.trim())
        };
        SignatureHeaders::read(get).is_ok_and(|it| it.holds(&self.platform, &answer[end..]))
    }
}

/// Where the body begins.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|it| it + 4)
}

/// A kept-alive connection that knows just enough HTTP.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Connection, Fault> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, answer: Vec::with_capacity(4096) })
    }

    /// The last answer, head and body.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    pub fn body(&self) -> &[u8] {
        head_end(&self.answer).map_or(&[], |it| &self.answer[it..])
    }

    /// Writes a request, reads its answer, tells the status.
    pub async fn ask(&mut self, request: &[u8]) -> Result<u16, Fault> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let Some(end) = head_end(&self.answer) else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?;
            let field = |line: &str| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            };
            let length: usize = head.lines().find_map(field).unwrap_or(0);
            if self.answer.len() >= end + length {
                let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
                return Ok(status.unwrap_or(0));
            }
        }
    }
}
