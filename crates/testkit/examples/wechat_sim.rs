//! Runs the WeChat Pay simulator by itself, with fresh keys, until it is interrupted.
//!
//! For trying SDKs and the wallet page by hand: `cargo run -p testkit --example wechat_sim -- DIR`
//! writes the merchant's and the platform's keys to DIR and prints what to open. `feiqian demo`
//! starts its own simulator and does not need this.

use std::net::SocketAddr;
use std::path::PathBuf;
use testkit::wechat::{PlatformKeys, SimMerchant, WechatSimServer, WechatSimSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("demo-data"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    let (merchant, platform) = (seal::generate_rsa(), seal::generate_rsa());
    let now = WechatSimServer::wall_now();
    let five_years = now.plus_s(5 * 365 * 86_400);
    let certificate = |pem: &str, name: &str| {
        seal::self_signed(pem, name, seal::random_bytes(), now.plus_s(-60), five_years)
    };
    let merchant_certificate = certificate(&merchant.private_pem, "merchant 1900000109")?;
    let platform_certificate = certificate(&platform.private_pem, "simulated platform")?;
    let serial = seal::Certificate::from_pem(&merchant_certificate)?.serial().to_owned();
    let platform_serial = seal::Certificate::from_pem(&platform_certificate)?.serial().to_owned();
    let apiv3_key = seal::random_nonce();
    let id = "PUB_KEY_ID_0119000001092026112100000001";
    let files = [
        ("merchant_private_key.pem", &merchant.private_pem),
        ("platform_public_key.pem", &platform.public_pem),
        ("platform_certificate.pem", &platform_certificate),
    ];
    for (name, text) in files {
        std::fs::write(dir.join(name), text)?;
    }
    let settings = WechatSimSettings::new(
        PlatformKeys {
            private_pem: platform.private_pem,
            certificate_pem: Some(platform_certificate),
            public_key_id: Some(id.into()),
            notify_public_key_percent: 100,
        },
        vec![SimMerchant {
            mchid: "1900000109".into(),
            name: "飞钱示例店".into(),
            appids: vec!["wx2421b1c4370ec43b".into()],
            serial: serial.clone(),
            key_pem: merchant_certificate,
            apiv3_key: wechatpay::Apiv3Key::parse(&apiv3_key)?,
            refund_notify_url: None,
            fee_bps: 60,
        }],
    );
    let server = WechatSimServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await?;
    let about = serde_json::json!({
        "base_url": server.base_url(),
        "wallet_url": format!("{}/wallet/", server.base_url()),
        "control_url": format!("{}/_sim/", server.base_url()),
        "mchid": "1900000109",
        "appid": "wx2421b1c4370ec43b",
        "merchant_serial": serial,
        "apiv3_key": apiv3_key,
        "platform_public_key_id": id,
        "platform_serial": platform_serial,
        "keys": dir,
    });
    println!("{about:#}");
    std::fs::write(dir.join("wechat_sim.json"), format!("{about:#}"))?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
