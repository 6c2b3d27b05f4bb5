//! The configuration as operators meet it: everything that is wrong is told at once and with its
//! place, the environment overrides the file, the schema fits what `init` writes, and the documents
//! name every key.

use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Installation(PathBuf);

impl Drop for Installation {
    fn drop(&mut self) {
        // It lies in the place for temporary files.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Installation {
    fn new() -> Installation {
        let name = format!("feiqian-config-{}", seal::random_nonce());
        let folder = std::env::temp_dir().join(name);
        server::demo::prepare(&folder, "http://127.0.0.1:8080").unwrap();
        Installation(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("feiqian.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn replace(&self, line: &str, other: &str) {
        let text = self.text();
        assert!(text.contains(line), "{line} is not in {text}");
        self.write(&text.replacen(line, other, 1));
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feiqian"));
        command.arg("config").args(arguments).arg("--config").arg(self.file());
        let command = command.stdin(Stdio::null()).envs(environment.iter().copied());
        command.output().unwrap()
    }

    fn check(&self, environment: &[(&str, &str)]) -> Checked {
        let output = self.run(&["check", "--json"], environment);
        let text = String::from_utf8(output.stdout).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|it| panic!("{it}: {text}"));
        let ok = json["ok"] == true;
        assert_eq!(output.status.success(), ok, "{text}");
        Checked { ok, findings: json["findings"].as_array().unwrap().clone() }
    }
}

struct Checked {
    ok: bool,
    findings: Vec<Value>,
}

impl Checked {
    /// The finding about a key; it says what, why and what to do.
    #[track_caller]
    fn about(&self, key: &str, words: &str) -> &Value {
        let all = &self.findings;
        let found = all.iter().find(|it| it["where"] == key && it.to_string().contains(words));
        let found = found.unwrap_or_else(|| panic!("nothing on {key} with {words:?}: {all:#?}"));
        for part in ["what", "why", "what_to_do"] {
            assert!(!found[part].as_str().unwrap().is_empty(), "no {part}: {found}");
        }
        found
    }
}

#[test]
fn a_new_installation_has_nothing_wrong_and_everything_wrong_is_told_at_once() {
    let house = Installation::new();
    let fine = house.check(&[]);
    assert!(fine.ok && fine.findings.is_empty(), "{:?}", fine.findings);

    house.replace("# node = 0", "node = 1000\nlisten_adress = \"x\"");
    house.replace("listen = \"127.0.0.1:8080\"", "listen = 8080");
    house.replace("refuse_replayed_nonces = false", "refuse_replayed_nonces = \"no\"");
    house.replace("default_expiry_s = 604800", "default_expiry_s = 59");
    house.replace("mchid = \"1230000109\"", "");
    let wrong = house.check(&[]);
    assert!(!wrong.ok);
    let node = wrong.about("server.node", "0 to 999");
    let line = house.text().lines().position(|it| it == "node = 1000").unwrap() + 1;
    assert_eq!((&node["line"], &node["column"]), (&line.into(), &1.into()), "{node}");
    assert_eq!(node["text"], "node = 1000");
    wrong.about("server.listen_adress", "is not a key");
    wrong.about("server.listen", "an address with a port");
    wrong.about("server.refuse_replayed_nonces", "true or false");
    wrong.about("orders.default_expiry_s", "60");
    wrong.about("channel.wechat.mchid", "missing");
    assert_eq!(wrong.findings.len(), 6, "{:#?}", wrong.findings);
}

#[test]
fn a_near_miss_is_named() {
    let house = Installation::new();
    house.replace("public_url", "pubilc_url");
    let wrong = house.check(&[]);
    wrong.about("server.pubilc_url", "did you mean public_url?");
    wrong.about("server.public_url", "missing");
}

#[test]
fn what_is_no_toml_is_shown_with_its_line() {
    let house = Installation::new();
    house.replace("zone = \"Asia/Shanghai\"", "zone = \"Asia/Shanghai");
    house.replace("allow_private = true", "allow_private = true\nallow_pivate = 1");
    let wrong = house.check(&[]);
    let line = house.text().lines().position(|it| it.starts_with("zone =")).unwrap() + 1;
    let syntax = wrong.findings.iter().find(|it| it["line"] == line).expect("the line is named");
    assert_eq!(syntax["text"], "zone = \"Asia/Shanghai");
    // What else is wrong is told in the same breath.
    wrong.about("notify.allow_pivate", "did you mean allow_private?");
}

#[test]
fn keys_and_certificates_are_read_and_compared() {
    let house = Installation::new();
    let at = |name: &str| house.0.join(name);
    std::fs::write(at("simulator/merchant_private_key.pem"), "no key").unwrap();
    std::fs::remove_file(at("simulator/platform_public_key.pem")).unwrap();
    std::fs::write(at("simulator/apiv3_key"), "short").unwrap();
    std::fs::write(at("keys/vault.key"), "zz").unwrap();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(at("keys/platform_private_key.pem"), open).unwrap();
    let other = server::install::new_identity("other").unwrap();
    std::fs::write(at("keys/platform_certificate.pem"), other.certificate.pem()).unwrap();
    house.replace("http://127.0.0.1:8080", "http://pay.example.com");
    let wrong = house.check(&[]);
    assert!(!wrong.ok);
    wrong.about("channel.wechat.merchant_private_key", "is no private key");
    wrong.about("channel.wechat.platform_public_key", "cannot be read");
    wrong.about("keys.vault_key", "64 hexadecimal digits");
    wrong.about("keys.platform_certificate", "is not the certificate of");
    let rights = wrong.about("keys.platform_private_key", "chmod 600");
    assert_eq!(rights["severity"], "warning");
    assert_eq!(wrong.about("server.public_url", "plain http")["severity"], "warning");
}

#[test]
fn an_expired_certificate_is_an_error_and_one_that_ends_soon_a_warning() {
    let house = Installation::new();
    let key = std::fs::read_to_string(house.0.join("keys/platform_private_key.pem")).unwrap();
    let now = server::clock::wall();
    let write = |days: i64| {
        let (from, until) = (now.plus_s(-400 * 86_400), now.plus_s(days * 86_400));
        let pem = seal::self_signed(&key, "x", seal::random_bytes(), from, until).unwrap();
        std::fs::write(house.0.join("keys/platform_certificate.pem"), pem).unwrap();
    };
    write(-1);
    let expired = house.check(&[]);
    assert!(!expired.ok);
    expired.about("keys.platform_certificate", "expired on");
    write(10);
    let soon = house.check(&[]);
    assert!(soon.ok);
    assert_eq!(soon.about("keys.platform_certificate", "expires on")["severity"], "warning");
}

#[test]
fn two_channels_of_one_id_and_a_key_without_its_id_are_refused() {
    let house = Installation::new();
    let text = house.text();
    let channel = text[text.rfind("[[channel]]").unwrap()..].to_owned();
    let half = channel.replace("platform_public_key_id", "# platform_public_key_id");
    house.write(&format!("{text}\n{}", half.split("[limits]").next().unwrap()));
    let wrong = house.check(&[]);
    wrong.about("channel[1]", "used twice");
    wrong.about("channel[1]", "needs its id");
}

#[test]
fn the_environment_overrides_the_file_and_what_it_misspells_is_refused() {
    let house = Installation::new();
    let set = [
        ("FEIQIAN_SERVER__NODE", "7"),
        ("FEIQIAN_RISK__SINGLE_LIMIT_MINOR", "500"),
        ("FEIQIAN_CHANNEL__WECHAT__COST_BPS", "25"),
        ("FEIQIAN_LIMITS__PER_IP_PER_S", "9"),
    ];
    let output = house.run(&["show", "--json"], &set);
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let shown: BTreeMap<&str, (&Value, &str)> = list
        .iter()
        .map(|it| (it["key"].as_str().unwrap(), (&it["value"], it["source"].as_str().unwrap())))
        .collect();
    assert_eq!(shown["server.node"], (&7.into(), "environment FEIQIAN_SERVER__NODE"));
    assert_eq!(shown["risk.single_limit_minor"].0, 500);
    assert_eq!(shown["channel.wechat.cost_bps"].0, 25);
    assert_eq!(shown["limits.per_ip_per_s"].0, 9);
    assert_eq!(shown["server.zone"], (&"Asia/Shanghai".into(), "file"));
    assert_eq!(shown["limits.body_bytes"], (&65_536.into(), "default"));

    let wrong = house.check(&[("FEIQIAN_SERVER__LISTNE", "1"), ("FEIQIAN_SERVER__NODE", "many")]);
    assert!(!wrong.ok);
    wrong.about("", "did you mean FEIQIAN_SERVER__LISTEN?");
    let node = wrong.about("server.node", "whole number");
    assert_eq!(node["variable"], "FEIQIAN_SERVER__NODE");
    assert!(!house.check(&[("FEIQIAN_CHANNEL__ALIPAY__COST_BPS", "1")]).ok);

    // One underscore: perhaps somebody else's variable, so only a warning.
    let near = house.check(&[("FEIQIAN_SERVER_LISTEN", "127.0.0.1:1")]);
    assert!(near.ok);
    near.about("", "did you mean FEIQIAN_SERVER__LISTEN?");
    assert!(house.check(&[("FEIQIAN_SEED", "1")]).findings.is_empty());
}

/// Just enough JSON Schema: what the configuration uses.
fn validate(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(it) => vec![it],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        wrong.push(format!("{path} is {kind}, not {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|it| !it.contains(value)) {
        wrong.push(format!("{path}: {value} is not listed"));
    }
    if let Some(number) = value.as_i64() {
        let below = schema["minimum"].as_i64().is_some_and(|it| number < it);
        let above = schema["maximum"].as_i64().is_some_and(|it| number > it);
        if below || above {
            wrong.push(format!("{path}: {number} is out of range"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(property) => validate(property, value, &format!("{path}.{key}"), wrong),
            None if schema["additionalProperties"] == false => wrong.push(format!("{path}.{key}")),
            None => {}
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            wrong.push(format!("{path}.{key} is missing"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        validate(&schema["items"], item, &format!("{path}[]"), wrong);
    }
}

#[test]
fn the_schema_fits_what_init_writes_and_explains_every_key() {
    let house = Installation::new();
    let output = Command::new(env!("CARGO_BIN_EXE_feiqian")).args(["config", "schema"]).output();
    let schema: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let validated = |text: &str| {
        let value: Value = toml::from_str(text).unwrap();
        let mut wrong = Vec::new();
        validate(&schema, &value, "", &mut wrong);
        wrong
    };
    assert_eq!(validated(&house.text()), Vec::<String>::new());
    // The sections that are commented out are right too, and hold the defaults.
    let text = house.text();
    let commented = &text[text.find("# [limits]").unwrap()..];
    let block: String = commented
        .lines()
        .take_while(|it| it.starts_with("# "))
        .map(|it| format!("{}\n", &it[2..]))
        .collect();
    let limits: Value = toml::from_str(&block).unwrap();
    let defaults = serde_json::to_value(server::config::LimitsConfig::default()).unwrap();
    assert_eq!(limits["limits"], defaults);
    // And the validator can say no.
    assert_eq!(validated(&text.replace("# node = 0", "node = 1000")).len(), 1);

    for leaf in server::config::schema::leaves() {
        assert!(leaf.schema["description"].is_string(), "{} is not explained", leaf.path);
    }
}

/// Every key has a row in both documents, with its default, and with whether a running server takes
/// it over.
#[test]
fn the_documents_name_every_key() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, live, restart) in
        [("configuration.md", "yes", "restart"), ("configuration.zh-CN.md", "是", "重启")]
    {
        let text = std::fs::read_to_string(docs.join(name)).unwrap();
        for leaf in server::config::schema::leaves() {
            let start = format!("| `{}` |", leaf.path);
            let row = text.lines().find(|it| it.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("{name} lacks a row that begins {start}"));
            let word = if leaf.schema["x-live"] == true { live } else { restart };
            assert!(row.ends_with(&format!("| {word} |")), "{name}: {row} should end with {word}");
            let default = match &leaf.schema["default"] {
                Value::Null => continue,
                Value::String(it) => it.clone(),
                other => other.to_string(),
            };
            assert!(row.contains(&format!("`{default}`")), "{name}: {row} lacks default {default}");
        }
    }
}
