//! Carries notifications to merchants. One try a call: when to try again, what to write and how to
//! sign it is decided elsewhere.

use crate::notify_address::{UrlRefusal, check_notify_url, is_public};
use crate::transport::{TransportError, TrustRoots, builder, chain, read_body};
use app::Delivery;
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct NotifySettings {
    /// The whole of one try, from resolving the name to the end of the answer. WeChat Pay gives
    /// merchants 5 s, and their servers count on it.
    pub timeout_ms: u64,
    /// Lets notifications go to private addresses: for the demo and walled installations.
    pub allow_private: bool,
    pub roots: TrustRoots,
    pub user_agent: String,
}

impl Default for NotifySettings {
    fn default() -> NotifySettings {
        NotifySettings {
            timeout_ms: 5_000,
            allow_private: false,
            roots: TrustRoots::System,
            user_agent: "Feiqian-Notify".into(),
        }
    }
}

fn failed(error: String, started: Instant) -> Delivery {
    Delivery {
        status: None,
        duration_ms: elapsed_ms(started),
        body_head: String::new(),
        error: Some(error),
    }
}

const HEAD_CHARS: usize = 512;
/// UTF-8 takes at most four bytes a character.
const HEAD_BYTES: usize = HEAD_CHARS * 4;

#[derive(Clone, Debug)]
pub struct NotifyClient {
    client: Client,
    allow_private: bool,
}

impl NotifyClient {
    pub fn new(settings: NotifySettings) -> Result<NotifyClient, TransportError> {
        let NotifySettings { timeout_ms, allow_private, roots, user_agent } = settings;
        let mut builder = builder(&roots, timeout_ms)?
            .timeout(Duration::from_millis(timeout_ms))
            .user_agent(user_agent)
            // Merchants are many and notified rarely: idle connections would only pile up.
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(20));
        if !allow_private {
            builder = builder.dns_resolver(Arc::new(PublicResolver));
        }
        let client = builder.build().map_err(TransportError::Start)?;
        Ok(NotifyClient { client, allow_private })
    }

    /// Sends one notification. Never fails: whatever happens is a [`Delivery`].
    ///
    /// - A redirect is an answer like any other, and not followed.
    /// - An address that may not be called is a delivery without status.
    pub async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Delivery {
        let started = Instant::now();
        if let Err(refusal) = check_notify_url(url, self.allow_private) {
            return failed(refusal.to_string(), started);
        }
        let mut request = self.client.post(url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(chain(error), started),
        };
        // The status is the answer; a body that breaks off takes nothing away from it.
        let head = read_body(&mut response, HEAD_BYTES).await.map(|it| it.0).unwrap_or_default();
        Delivery {
            status: Some(response.status().as_u16()),
            duration_ms: elapsed_ms(started),
            body_head: String::from_utf8_lossy(&head).chars().take(HEAD_CHARS).collect(),
            error: None,
        }
    }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Resolves names to public addresses only. The client connects to exactly what comes out here,
/// so a name cannot turn private between check and use.
struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client fills in the port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|it| is_public(it.ip())).collect();
            if public.is_empty() {
                return Err(UrlRefusal::NotPublic(name.as_str().into()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn client(allow_private: bool) -> NotifyClient {
        let roots = TrustRoots::Only(Vec::new());
        NotifyClient::new(NotifySettings {
            timeout_ms: 500,
            allow_private,
            roots,
            ..Default::default()
        })
        .unwrap()
    }

    /// A merchant that reads one request and answers `answer`; returns its address and the request.
    async fn merchant(answer: String) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        });
        (format!("http://127.0.0.1:{port}/pay"), seen)
    }

    #[tokio::test]
    async fn a_notification_arrives_with_its_headers_in_title_case() {
        let (url, seen) = merchant("HTTP/1.1 204 No Content\r\n\r\n".into()).await;
        let headers = vec![("wechatpay-nonce", "n".to_owned())];
        let delivery = client(true).post(&url, headers, b"{}".to_vec()).await;
        assert!(delivery.accepted(), "{delivery:?}");
        let seen = seen.await.unwrap();
        assert!(seen.starts_with("POST /pay HTTP/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("\r\nWechatpay-Nonce: n\r\n") && seen.ends_with("\r\n\r\n{}"),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_a_long_answer_is_cut() {
        let (url, _seen) = merchant(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                .into(),
        )
        .await;
        assert_eq!(client(true).post(&url, vec![], vec![]).await.status, Some(302));

        let long = "成".repeat(5_000);
        let (url, _seen) =
            merchant(format!("HTTP/1.1 500 Oops\r\nContent-Length: {}\r\n\r\n{long}", long.len()))
                .await;
        let delivery = client(true).post(&url, vec![], vec![]).await;
        assert_eq!((delivery.status, delivery.accepted()), (Some(500), false));
        assert_eq!(delivery.body_head, "成".repeat(512));
    }

    #[tokio::test]
    async fn silence_ends_at_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let delivery = client(true).post(&url, vec![], vec![]).await;
        assert_eq!(delivery.status, None);
        assert!((400..3_000).contains(&delivery.duration_ms), "{delivery:?}");
        assert!(delivery.error.unwrap().contains("timed out"));
    }

    #[tokio::test]
    async fn private_addresses_are_not_called() {
        let (url, _seen) = merchant("HTTP/1.1 204 No Content\r\n\r\n".into()).await;
        let delivery = client(false).post(&url, vec![], vec![]).await;
        assert_eq!(delivery.status, None);
        assert!(delivery.error.unwrap().contains("names 127.0.0.1"));
    }

    /// A name that the text of a URL does not betray: it is refused by what it resolves to.
    #[tokio::test]
    async fn names_are_refused_by_what_they_resolve_to() {
        let name = "localhost".parse().unwrap();
        let Err(refusal) = PublicResolver.resolve(name).await else { panic!("localhost passed") };
        assert!(refusal.to_string().contains("names localhost"), "{refusal}");
    }
}
