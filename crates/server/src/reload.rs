//! A new configuration without a restart: SIGHUP reads the file again. What is wrong is told whole,
//! and then nothing of it is taken.

use crate::config::{Config, Findings};
use crate::gateway::{Gateway, ReloadError, Reloaded};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Reloads on every SIGHUP until `stop` turns true.
pub fn on_hangup(
    gateway: Arc<Gateway>,
    file: PathBuf,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                told = hangup.recv() => if told.is_none() { break },
                _ = stop.changed() => break,
            }
            let (gateway, file) = (gateway.clone(), file.clone());
            // Files are read, keys parsed: nothing for a thread that answers requests.
            let done = tokio::task::spawn_blocking(move || (reload(&gateway, &file), gateway));
            if let Ok((true, gateway)) = done.await {
                // Channels in certificate mode have forgotten the keys that they had fetched.
                gateway.roster.refresh_keys().await;
            }
        }
    });
    Ok(())
}

fn reload(gateway: &Gateway, file: &Path) -> bool {
    match gateway.reload(Config::check(file, std::env::vars())) {
        Ok(Reloaded { taken, waiting, warnings }) => {
            tell(&warnings);
            tracing::info!(changed = taken.join(", "), "configuration and keys were read again");
            if !waiting.is_empty() {
                let keys = waiting.join(", ");
                tracing::warn!(keys, "these keys changed in the file and hold after a restart");
            }
            true
        }
        Err(ReloadError::Wrong(findings)) => {
            tell(&findings);
            tracing::error!("the new configuration is wrong; the old one holds");
            false
        }
        Err(ReloadError::Open(error)) => {
            tracing::error!(%error, "the new configuration cannot be used; the old one holds");
            false
        }
    }
}

fn tell(findings: &Findings) {
    for it in findings.iter() {
        let line = it.spot.as_ref().map(|it| it.line);
        let (key, why, what_to_do) = (&it.key, &it.why, &it.remedy);
        tracing::warn!(key, line, why, what_to_do, "{}: {}", it.severity.word(), it.what);
    }
}
