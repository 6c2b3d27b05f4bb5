//! What the schema cannot say: values that must fit each other, or mean something outside.

use super::{Config, Findings};
use crate::bus;
use app::EventName;
use channels::check_notify_url;
use kernel::Zone;
use std::net::IpAddr;

pub fn check(config: &Config, findings: &mut Findings) {
    let origin = &config.origin;
    public_url(config, findings);
    store_url(config, findings);
    if Zone::named(&config.server.zone).is_err() {
        let what = format!("{:?} is no time zone", config.server.zone);
        let remedy = "write an IANA name such as Asia/Shanghai";
        findings.error(origin, "server.zone", what, "the business day ends by it", remedy);
    }
    let named = config.keys.additional.iter().enumerate();
    let named = named.filter_map(|(index, it)| {
        Some((format!("keys.additional[{index}].public_key_id"), it.public_key_id.as_ref()?))
    });
    let first = ("keys.platform_public_key_id".to_owned(), &config.keys.platform_public_key_id);
    for (key, id) in std::iter::once(first).chain(named) {
        if !id.starts_with("PUB_KEY_ID_") {
            let what = format!("{id:?} does not begin with PUB_KEY_ID_");
            let why = "SDKs tell public keys from certificates by it";
            findings.error(origin, &key, what, why, "write PUB_KEY_ID_ and digits");
        }
    }
    message_bus(config, findings);
    webhooks(config, findings);
    channels(config, findings);
}

fn public_url(config: &Config, findings: &mut Findings) {
    let (origin, key, url) = (&config.origin, "server.public_url", &config.server.public_url);
    let plain = url.strip_prefix("http://");
    let host = plain.or_else(|| url.strip_prefix("https://"));
    let Some(host) = host.filter(|it| !it.is_empty() && !it.ends_with('/')) else {
        let what = format!("{url:?} is not http(s)://host without a slash at the end");
        let why = "links and callbacks begin with it";
        findings.error(origin, key, what, why, "write it like https://pay.example.com");
        return;
    };
    if plain.is_some() && !is_loopback(host) {
        let why = "payers' pages and callbacks would go unencrypted";
        let remedy = "put a proxy with TLS in front and write https://…";
        findings.warning(origin, key, format!("{url} is plain http"), why, remedy);
    }
}

fn store_url(config: &Config, findings: &mut Findings) {
    let (origin, key) = (&config.origin, "store.url");
    let Some(url) = &config.store.url else { return };
    match store::PostgresUrl::parse(url) {
        Ok(url) if url.is_private() => {}
        Ok(_) => {
            let what = "the database is on another machine and sslmode is not require";
            let why = "its password and all data would go unencrypted, to whoever answers";
            findings.warning(origin, key, what, why, "add ?sslmode=require");
        }
        Err(error) => {
            let why = "everything is kept there";
            let remedy = "write postgres://user:password@host:port/name";
            findings.error(origin, key, error.to_string(), why, remedy);
        }
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((inside, _)) => inside,
        None => authority.split([':', '/']).next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn channels(config: &Config, findings: &mut Findings) {
    let origin = &config.origin;
    for (index, channel) in config.channels.iter().enumerate() {
        let id = &channel.id;
        let twice = config.channels[..index].iter().any(|it| it.id == *id);
        let at = if twice || id.is_empty() {
            format!("channel[{index}]")
        } else {
            format!("channel.{id}")
        };
        if twice {
            let why = "payments name their channel by it";
            let what = format!("channel id {id:?} is used twice");
            findings.error(origin, &at, what, why, "give each channel an id of its own");
        } else if id.is_empty() || !id.bytes().all(is_name_byte) {
            let what = format!("channel id {id:?} is not letters, digits, - and _");
            let why = "it is part of addresses and variables";
            findings.error(origin, &format!("{at}.id"), what, why, "choose another id");
        }
        if channel.platform_public_key.is_some() != channel.platform_public_key_id.is_some() {
            let what = "a public key needs its id, and an id its key";
            let why = "answers name the key that signed them";
            let remedy = "give platform_public_key and platform_public_key_id, or neither";
            findings.error(origin, &at, what, why, remedy);
        }
    }
}

fn message_bus(config: &Config, findings: &mut Findings) {
    let (origin, bus) = (&config.origin, &config.bus);
    if let Some(Err(error)) = bus.url.as_deref().map(bus::addresses) {
        let why = "events leave over the bus";
        let remedy = "write nats://host:4222, several with commas";
        findings.error(origin, "bus.url", error.to_string(), why, remedy);
    }
    if !matches!(bus.replicas, 1 | 3 | 5) {
        let what = format!("{} replicas have no majority of their own", bus.replicas);
        let why = "the bus decides by majority";
        findings.error(origin, "bus.replicas", what, why, "write 1, 3 or 5");
    }
    if bus.stream.is_empty() || !bus.stream.bytes().all(is_name_byte) {
        let what = format!("stream {:?} is not letters, digits, - and _", bus.stream);
        let why = "the bus refuses other names";
        findings.error(origin, "bus.stream", what, why, "choose another name");
    }
}

fn webhooks(config: &Config, findings: &mut Findings) {
    let origin = &config.origin;
    for (index, webhook) in config.webhooks.iter().enumerate() {
        let key = |name: &str| format!("webhook[{index}].{name}");
        if let Err(refusal) = check_notify_url(&webhook.url, config.notify.allow_private) {
            let what = refusal.to_string().replace("notification address", "webhook");
            let remedy = "write a public https address, or set notify.allow_private";
            findings.error(origin, &key("url"), what, "events are posted there", remedy);
        }
        if config.webhooks[..index].iter().any(|it| it.url == webhook.url) {
            let what = format!("two webhooks go to {}", webhook.url);
            let why = "the bus knows a webhook by its address";
            findings.error(origin, &key("url"), what, why, "keep one, with the events of both");
        }
        if bus::webhooks::parse_secret(&webhook.secret).is_none() {
            let what = "the secret is not whsec_ and 24 to 64 bytes in base64";
            let why = "listeners verify events with it";
            let remedy = "make one: echo whsec_$(openssl rand -base64 32)";
            findings.error(origin, &key("secret"), what, why, remedy);
        }
        let unknown = |it: &&String| bus::webhooks::event_named(it).is_none();
        for name in webhook.events.iter().filter(unknown) {
            let known = EventName::ALL.map(EventName::as_str).join(", ");
            let what = format!("there is no event {name:?}");
            let why = "a webhook that waits for it would hear nothing";
            findings.error(origin, &key("events"), what, why, format!("there are: {known}"));
        }
    }
}

fn is_name_byte(it: u8) -> bool {
    it.is_ascii_alphanumeric() || it == b'-' || it == b'_'
}
