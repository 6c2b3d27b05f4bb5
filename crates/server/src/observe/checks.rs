//! What is looked at from time to time: whether the books are right, and which certificate ends.

use crate::clock;
use crate::gateway::Gateway;
use app::Store;
use seal::Certificate;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(600);
/// How often measured times are folded into their histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Sleeps; false if the process stops meanwhile.
async fn pause(stop: &mut watch::Receiver<bool>, how_long: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(how_long) => true,
        changed = stop.wait_for(|it| *it) => { changed.ok(); false }
    }
}

pub async fn upkeep(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    while pause(&mut stop, UPKEEP_EVERY).await {
        gateway.observe.metrics.upkeep();
    }
}

/// Recomputes the books, at once and then every `every`.
pub async fn books(gateway: Arc<Gateway>, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        check_books(&gateway).await;
        if !pause(&mut stop, every).await {
            return;
        }
    }
}

async fn check_books(gateway: &Arc<Gateway>) {
    let (store, runtime) = (gateway.store().clone(), tokio::runtime::Handle::current());
    // It reads everything there is, and must not hold up the threads that answer merchants.
    let audit = move || runtime.block_on(app::audit(&store, |_| {}));
    match tokio::task::spawn_blocking(audit).await {
        Ok(Ok(report)) => {
            for finding in &report.findings {
                tracing::error!(finding, "the books are wrong");
            }
            let at_s = clock::wall().ms() as f64 / 1000.0;
            gateway.observe.metrics.ledger_checked(report.findings.is_empty(), at_s);
        }
        Ok(Err(error)) => tracing::error!(%error, "the books could not be checked"),
        Err(error) => tracing::error!(%error, "the check of the books broke off"),
    }
}

pub async fn certificates(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    loop {
        look_at_certificates(&gateway).await;
        if !pause(&mut stop, CERTIFICATES_EVERY).await {
            return;
        }
    }
}

async fn look_at_certificates(gateway: &Gateway) {
    let metrics = &gateway.observe.metrics;
    let seconds = |it: kernel::Timestamp| it.ms() as f64 / 1000.0;
    metrics.certificate("platform", seconds(gateway.certificate().not_after()));
    for channel in gateway.roster.channels() {
        if let Some(end) = channel.keys_end() {
            metrics.certificate(&format!("channel_{}", channel.id()), seconds(end));
        }
    }
    match gateway.store().merchants().await {
        Ok(all) => {
            let active = all.iter().filter(|it| it.active);
            let ends = active.filter_map(|it| Certificate::from_pem(&it.certificate_pem).ok());
            // One series for all: which merchant it is, `feiqian merchant list` tells.
            if let Some(nearest) = ends.map(|it| it.not_after()).min() {
                metrics.certificate("merchants", seconds(nearest));
            }
        }
        Err(error) => tracing::warn!(%error, "merchants' certificates could not be looked at"),
    }
}
