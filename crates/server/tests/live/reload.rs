//! SIGHUP while requests run: what may change changes, what is wrong is refused whole, and no
//! request fails of it.

use crate::house::{House, refusal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const DONE: &str = "configuration and keys were read again";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_holds_at_once_and_no_request_fails_of_it() {
    let limits = "per_merchant_per_s = 0\nper_ip_per_s = 0\n";
    let house = House::start(&["1900000101", "1900000102"], limits).await;
    let [merchant, runner] = [&house.merchants[0], &house.merchants[1]];

    // Queries run all the time. None may fail, whatever is reloaded.
    assert_eq!(runner.create("RUN001", 100).await.status(), 200);
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let running: Vec<_> = (0..4)
        .map(|_| {
            let (runner, stop, count) = (runner.clone(), stop.clone(), count.clone());
            tokio::spawn(async move {
                let path = "/v3/pay/transactions/out-trade-no/RUN001?mchid=1900000102";
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(runner.get(path).await.status(), 200);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // A limit of risk.
    assert_eq!(merchant.create("RISK01", 501).await.status(), 200);
    house.edit("# single_limit_minor = 5000000", "single_limit_minor = 500");
    house.hang_up(DONE).await;
    assert!(house.log().contains("risk.single_limit_minor"), "{}", house.log());
    assert_eq!(merchant.create("RISK02", 501).await.status(), 403);
    assert_eq!(merchant.create("RISK03", 500).await.status(), 200);

    // A channel is switched off, then its cost changes and it is switched on again.
    house.edit("\ncost_bps = 30", "\ncost_bps = 40\nenabled = false");
    house.hang_up(DONE).await;
    assert_eq!(refusal(merchant.create("OFF001", 100).await).await, (403, "NO_AUTH".into()));
    house.edit("enabled = false", "enabled = true");
    house.hang_up(DONE).await;
    assert_eq!(merchant.create("ON0001", 100).await.status(), 200);

    // A platform key is added: it is listed, and signs for those who ask for it.
    let more = server::install::new_identity("Second").unwrap();
    std::fs::write(house.folder.join("keys/second.pem"), &more.private_pem).unwrap();
    std::fs::write(house.folder.join("keys/second_cert.pem"), more.certificate.pem()).unwrap();
    house.edit(
        "\n[notify]",
        "\n[[keys.additional]]\nprivate_key = \"keys/second.pem\"\ncertificate = \"keys/second_cert.pem\"\n\n[notify]",
    );
    house.hang_up(DONE).await;
    let listed = merchant.get("/v3/certificates").await.text().await.unwrap();
    assert!(listed.contains(more.certificate.serial()), "{listed}");
    let asked = merchant
        .send("GET", "/v3/certificates", String::new(), |it| {
            it.header("wechatpay-serial", more.certificate.serial())
        })
        .await;
    assert_eq!(asked.headers()["wechatpay-serial"], more.certificate.serial());

    // A wrong file is refused whole, with every problem; what was right in it is not taken either.
    house.edit("single_limit_minor = 500", "single_limit_minor = 100000");
    house.edit("cost_bps = 40", "cost_bps = 10001\nenabeld = true");
    house.hang_up("the old one holds").await;
    let log = house.log();
    assert!(log.contains("10001") && log.contains("did you mean enabled?"), "{log}");
    assert_eq!(merchant.create("RISK04", 501).await.status(), 403);
    assert_eq!(merchant.create("STILL1", 100).await.status(), 200);

    // What needs a restart is named, and the rest is taken.
    house.edit("cost_bps = 10001\nenabeld = true", "cost_bps = 50");
    house.edit("# node = 0", "node = 5");
    house.hang_up("hold after a restart").await;
    assert!(house.log().contains("server.node"), "{}", house.log());
    assert_eq!(merchant.create("RISK05", 501).await.status(), 200);

    let before = count.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.expect("no request failed");
    }
    assert!(before > 20, "only {before} requests ran meanwhile");
}
