//! What both clients, to providers and to merchants, share: how a connection is made and whom it
//! trusts, and a body read no further than its limit. Decides nothing about what is sent.

use reqwest::{Certificate, ClientBuilder, Response, redirect, retry, tls};
use std::error::Error;
use std::time::Duration;

/// Whose certificates a server must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustRoots {
    /// Those of the operating system (Debian: package `ca-certificates`).
    System,
    /// Exactly these certificates in PEM. None at all means that only plain http works, as in the
    /// demo, on a machine without any.
    Only(Vec<String>),
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("root certificate {number} cannot be read; give PEM text of a certificate")]
    Root {
        number: usize,
        #[source]
        why: reqwest::Error,
    },
    #[error("the HTTP client cannot start; on Debian, install the package ca-certificates")]
    Start(#[source] reqwest::Error),
}

/// A client that does only what it is told: no redirect, no proxy, no repeat of its own.
pub(crate) fn builder(
    roots: &TrustRoots,
    connect_timeout_ms: u64,
) -> Result<ClientBuilder, TransportError> {
    let builder = ClientBuilder::new()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        // One request a connection at a time: a lost connection then puts one request in doubt,
        // not all that shared it. Providers' header names are matched by case here and there.
        .http1_only()
        .http1_title_case_headers()
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(Duration::from_millis(connect_timeout_ms));
    match roots {
        TrustRoots::System => Ok(builder),
        TrustRoots::Only(pems) => {
            let mut certificates = Vec::with_capacity(pems.len());
            for (index, pem) in pems.iter().enumerate() {
                let certificate = Certificate::from_pem(pem.as_bytes())
                    .map_err(|why| TransportError::Root { number: index + 1, why })?;
                certificates.push(certificate);
            }
            Ok(builder.tls_certs_only(certificates))
        }
    }
}

/// Reads the body up to `limit` bytes. The flag tells whether it ended there by itself.
pub(crate) async fn read_body(
    response: &mut Response,
    limit: usize,
) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

/// An error with its causes on one line, without the URL: that may hold a token.
pub(crate) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text.push_str(": ");
        text.push_str(&it.to_string());
        cause = it.source();
    }
    text
}
