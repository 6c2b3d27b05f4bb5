//! The WeChat Pay simulator with an account of ours at it: beside the demo, or alone as an outside
//! party of an installation under test (`feiqian simulator`).
//!
//! What it knows of orders is in memory only; its keys are kept in a folder.

use crate::cli::{Fault, stop_signal};
use crate::install::{self, new_identity};
use crate::{clock, config};
use clap::Args;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use testkit::wechat::{PlatformKeys, SimMerchant, WechatSimServer, WechatSimSettings};
use wechatpay::Apiv3Key;

/// The platform's own account at the simulated WeChat Pay.
pub(crate) const CHANNEL_MCHID: &str = "1230000109";
pub(crate) const CHANNEL_APPID: &str = "wxd678efh567hg6787";
/// `PUB_KEY_ID_` and digits, as WeChat Pay names its key.
pub(crate) const SIM_KEY_ID: &str = "PUB_KEY_ID_0112300001092026112100000000000001";
/// Below the data folder: keys, and the block for a configuration.
const FOLDER: &str = "simulator";
const BLOCK: &str = "channel.toml";

#[derive(Debug, Args)]
pub struct SimulatorArgs {
    /// Never an address that others can reach: whoever calls may pay any order
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Where its keys are kept, made when there are none
    #[arg(long, value_name = "DIR", default_value = "./simulator-data")]
    data: PathBuf,
}

pub async fn run(args: SimulatorArgs) -> Result<(), Fault> {
    let block = args.data.join(FOLDER).join(BLOCK);
    if !block.exists() {
        let channel = prepare(&args.data, &format!("http://{}", args.listen))?;
        fs::write(&block, channel)?;
    }
    let simulator = start(&args.data, args.listen).await?;
    println!("WeChat Pay simulator at {}", simulator.base_url());
    println!("Append {} to {}", block.display(), config::FILE_NAME);
    let mut stop = stop_signal();
    while !*stop.borrow() {
        if stop.changed().await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Makes the simulator's keys and those of our account. Returns the account as a block for the
/// configuration, its paths relative to `data`.
pub(crate) fn prepare(data: &Path, base_url: &str) -> Result<String, Fault> {
    let folder = data.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let merchant = new_identity(CHANNEL_MCHID)?;
    let platform = new_identity("Simulated WeChat Pay")?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    };
    put("merchant_private_key.pem", &merchant.private_pem)?;
    put("merchant_certificate.pem", merchant.certificate.pem())?;
    put("apiv3_key", &install::new_apiv3_key())?;
    put("platform_private_key.pem", &platform.private_pem)?;
    put("platform_public_key.pem", &platform.public_pem)?;
    put("platform_certificate.pem", platform.certificate.pem())?;
    Ok(format!(
        r#"
[[channel]]
kind = "wechat"
id = "wechat"
label_zh = "微信支付"
label_en = "WeChat Pay"
base_url = "{base_url}"
mchid = "{CHANNEL_MCHID}"
appid = "{CHANNEL_APPID}"
merchant_serial = "{}"
merchant_private_key = "simulator/merchant_private_key.pem"
apiv3_key = "simulator/apiv3_key"
cost_bps = 30
platform_public_key = "simulator/platform_public_key.pem"
platform_public_key_id = "{SIM_KEY_ID}"
"#,
        merchant.certificate.serial()
    ))
}

pub(crate) fn certificate_serial(data: &Path) -> Result<String, Fault> {
    let pem = fs::read_to_string(data.join(FOLDER).join("platform_certificate.pem"))?;
    Ok(seal::Certificate::from_pem(&pem)?.serial().to_owned())
}

/// Starts with the keys that [`prepare`] made; port 0 takes any free one.
pub async fn start(data: &Path, listen: SocketAddr) -> Result<WechatSimServer, Fault> {
    let folder = data.join(FOLDER);
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| {
            format!("{} cannot be read ({error}); remove the folder to begin anew", path.display())
        })
    };
    let certificate = read("merchant_certificate.pem")?;
    let platform = PlatformKeys {
        private_pem: read("platform_private_key.pem")?,
        certificate_pem: Some(read("platform_certificate.pem")?),
        public_key_id: Some(SIM_KEY_ID.into()),
        notify_public_key_percent: 100,
    };
    let merchant = SimMerchant {
        mchid: CHANNEL_MCHID.into(),
        name: "Feiqian 演示 Demo".into(),
        appids: vec![CHANNEL_APPID.into()],
        serial: seal::Certificate::from_pem(&certificate)?.serial().to_owned(),
        key_pem: certificate,
        apiv3_key: Apiv3Key::parse(&read("apiv3_key")?)?,
        refund_notify_url: None,
        fee_bps: 30,
    };
    let settings = WechatSimSettings {
        // Numbers must not repeat when it is started again for the same orders.
        seed: clock::wall().ms().unsigned_abs(),
        ..WechatSimSettings::new(platform, vec![merchant])
    };
    Ok(WechatSimServer::start(listen, settings).await?)
}
