//! What is looked at from time to time: whether the books are right, and which certificate ends.

use super::metrics::{Pulse, Queue};
use crate::clock;
use crate::gateway::Gateway;
use app::{IntentKind, Store};
use seal::Certificate;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How often certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(600);
/// How often measured times are folded into their histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Findings that are logged of one check of the books; the command shows all.
const SHOWN: usize = 20;

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
        match pulse(&gateway).await {
            Ok(pulse) => gateway.observe.metrics.pulse(&pulse),
            Err(error) => tracing::warn!(%error, "what waits could not be counted"),
        }
    }
}

/// What waits in the whole installation, and how long this process may still work.
async fn pulse(gateway: &Gateway) -> Result<Pulse, app::StoreError> {
    let now = gateway.clock.now();
    let seen = gateway.store().pulse(now).await?;
    let age_s = |since: Option<kernel::Timestamp>| {
        since.map_or(0.0, |it| (now.ms() - it.ms()).max(0) as f64 / 1000.0)
    };
    let queue = |kind: IntentKind| {
        let backlog = seen.backlog.iter().find(|it| it.0 == kind);
        let backlog = backlog.map(|it| it.1).unwrap_or_default();
        Queue {
            kind: name_of(kind),
            intents: backlog.open,
            due: backlog.due,
            oldest_due_age_s: age_s(backlog.oldest),
        }
    };
    Ok(Pulse {
        // Also those that nothing waits in: they stand at zero.
        queues: KINDS.map(queue).into(),
        in_doubt: seen.in_doubt,
        in_doubt_oldest_age_s: age_s(seen.in_doubt_since),
        lease_s: Some(gateway.membership.left().as_secs_f64()),
    })
}

const KINDS: [IntentKind; 4] =
    [IntentKind::Heal, IntentKind::Refund, IntentKind::Notify, IntentKind::Publish];

fn name_of(kind: IntentKind) -> &'static str {
    match kind {
        IntentKind::Heal => "heal",
        IntentKind::Refund => "refund",
        IntentKind::Notify => "notify",
        IntentKind::Publish => "publish",
    }
}

/// Recomputes the books, at once and then every `every`.
pub async fn books(gateway: Arc<Gateway>, every: Duration, mut stop: watch::Receiver<bool>) {
    loop {
        let mut stopping = stop.clone();
        tokio::select! {
            () = check_books(&gateway) => {}
            // A check that is under way only reads, and is left behind.
            _ = stopping.wait_for(|it| *it) => return,
        }
        if !pause(&mut stop, every).await {
            return;
        }
    }
}

async fn check_books(gateway: &Gateway) {
    let (store, runtime) = (gateway.store().clone(), tokio::runtime::Handle::current());
    let (answer, answered) = oneshot::channel();
    let audit = move || {
        // Nobody may be waiting any more.
        answer.send(runtime.block_on(app::audit(&store, |_| {}))).ok();
    };
    // It reads everything there is, and must hold up neither the threads that answer merchants nor
    // the end of the process, which waits for all threads of the runtime.
    if let Err(error) = std::thread::Builder::new().name("audit".into()).spawn(audit) {
        tracing::error!(%error, "the books could not be checked");
        return;
    }
    match answered.await {
        Ok(Ok(report)) => {
            let all = report.findings.len();
            for finding in report.findings.iter().take(SHOWN) {
                tracing::error!(finding, all, "the books are wrong; see `feiqian ledger check`");
            }
            let at_s = clock::wall().ms() as f64 / 1000.0;
            gateway.observe.metrics.ledger_checked(report.findings.is_empty(), at_s);
        }
        Ok(Err(error)) => tracing::error!(%error, "the books could not be checked"),
        Err(_) => tracing::error!("the check of the books broke off"),
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
