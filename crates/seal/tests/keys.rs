//! Keys and certificates: what is read, what is refused and how, and what generated keys can do.

use kernel::Timestamp;
use proptest::prelude::*;
use seal::{
    Certificate, KeyError, OaepError, Scheme, Signer, Verifier, generate_ed25519, generate_rsa,
    generate_sm2, same_serial, self_signed,
};
use std::sync::LazyLock;

const RSA: &str = include_str!("throwaway_rsa.pkcs8.pem");
const RSA_PUBLIC: &str = include_str!("throwaway_rsa.public.pem");
/// A throw-away key of a curve that we do not speak.
const P256: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9G9Fa5FHKXgbROOk\n\
    X94GeR7R6b9lc3HFCDZQ9KyVUIyhRANCAASEowGCjbP+9nwUqB5mk6SUyMZEA/mZ\n\
    YwRtIT/VY5GjNvChNzpScYENEGfHokL9i3gtTonshgjlQ9W16cfqe5ZR\n\
    -----END PRIVATE KEY-----\n";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhKMBgo2z/vZ8FKgeZpOklMjGRAP5\n\
    mWMEbSE/1WORozbwoTc6UnGBDRBnx6JC/Yt4LU6J7IYI5UPVtenH6nuWUQ==\n\
    -----END PUBLIC KEY-----\n";
const SERIAL: [u8; 20] = [0x4a; 20];

/// One signer of each scheme.
static SIGNERS: LazyLock<[Signer; 3]> = LazyLock::new(|| {
    [RSA.into(), generate_sm2().private_pem, generate_ed25519().private_pem]
        .map(|it: String| Signer::from_pem(&it).unwrap())
});

fn certificate() -> String {
    self_signed(
        RSA,
        "throw-away",
        SERIAL,
        Timestamp::from_ms(1_700_000_000_000),
        Timestamp::from_ms(1_857_680_000_000),
    )
    .unwrap()
}

#[test]
fn generated_keys_sign_and_the_public_half_verifies() {
    let check = |pair: seal::KeyPairPem, scheme: Scheme| {
        let signer = Signer::from_pem(&pair.private_pem).unwrap();
        let verifier = Verifier::from_public_key_pem(&pair.public_pem).unwrap();
        assert_eq!((signer.scheme(), verifier.scheme()), (scheme, scheme));
        let signature = signer.sign(b"message");
        assert!(verifier.verify(b"message", &signature), "{scheme}");
        assert!(!verifier.verify(b"massage", &signature), "{scheme}");
        assert_eq!(signer.verifier(), verifier);
    };
    check(generate_rsa(), Scheme::Rsa);
    check(generate_sm2(), Scheme::Sm2);
    check(generate_ed25519(), Scheme::Ed25519);
}

#[test]
fn a_key_of_one_scheme_is_not_taken_for_another() {
    let [rsa, sm2, ed25519] =
        [RSA.into(), generate_sm2().private_pem, generate_ed25519().private_pem];
    let check = |got: Result<Signer, KeyError>, found, want| {
        assert_eq!(got.err(), Some(KeyError::OtherScheme { found, want }));
    };
    check(Signer::rsa_from_pem(&sm2), Scheme::Sm2, Scheme::Rsa);
    check(Signer::sm2_from_pem(&ed25519), Scheme::Ed25519, Scheme::Sm2);
    check(Signer::ed25519_from_pem(&rsa), Scheme::Rsa, Scheme::Ed25519);
}

#[test]
fn a_signature_of_one_key_is_wrong_under_every_other() {
    for signer in &*SIGNERS {
        let signature = signer.sign(b"message");
        for other in &*SIGNERS {
            let same = other.scheme() == signer.scheme();
            assert_eq!(other.verifier().verify(b"message", &signature), same);
        }
    }
}

#[test]
fn signature_probes_fail_like_any_wrong_signature() {
    let verifier = Verifier::from_public_key_pem(RSA_PUBLIC).unwrap();
    for text in ["WECHATPAY/SIGNTEST/abcd", "WECHATPAY/SIGNTEST/abcdef=", "", "====", "签名"] {
        assert!(!verifier.verify_base64(b"message", text), "{text}");
    }
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let check = |got: Result<(), KeyError>, want: &str| {
        let error = got.expect_err(want).to_string();
        assert!(error.contains(want), "{error:?} lacks {want:?}");
    };
    let private = |text: &str| Signer::from_pem(text).map(drop);
    let public = |text: &str| Verifier::from_public_key_pem(text).map(drop);
    let named = |text: &str| Certificate::from_pem(text).map(drop);
    let certificate = certificate();
    let body = &RSA[28..RSA.len() - 60];

    check(private(""), "-----BEGIN PRIVATE KEY-----");
    check(private("no key here"), "no PEM block");
    check(private(RSA_PUBLIC), "is a \"PUBLIC KEY\", not a PRIVATE KEY");
    check(private(&certificate), "is a \"CERTIFICATE\", not a PRIVATE KEY");
    check(private(P256), "1.2.840.10045.2.1 is not supported");
    check(private(&RSA[..400]), "PRIVATE KEY is cut off");
    check(private(&RSA.replace('M', "!")), "not base64");
    check(
        private(&format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----")),
        "copy the file again",
    );
    check(
        private("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"),
        "openssl pkcs8",
    );
    check(private("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"), "cannot be read");
    check(
        private("-----BEGIN RSA PRIVATE KEY-----\nAQID\n-----END RSA PRIVATE KEY-----"),
        "cannot be read",
    );

    check(public(RSA), "is a \"PRIVATE KEY\", not a PUBLIC KEY");
    check(public(&certificate), "not a PUBLIC KEY");
    check(public(P256_PUBLIC), "1.2.840.10045.2.1 is not supported");
    check(public(&RSA_PUBLIC[..200]), "is cut off");
    check(public("-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----"), "cannot be read");

    check(named(RSA_PUBLIC), "is a \"PUBLIC KEY\", not a CERTIFICATE");
    check(named(&certificate[..300]), "is cut off");
    check(named("-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----"), "cannot be read");
    check(
        self_signed(P256_PUBLIC, "x", SERIAL, Timestamp::from_ms(0), Timestamp::from_ms(1))
            .map(drop),
        "key for a certificate",
    );
}

#[test]
fn a_certificate_tells_serial_validity_and_key() {
    let certificate = Certificate::from_pem(&certificate()).unwrap();
    assert_eq!(certificate.serial(), "4A".repeat(20));
    assert_eq!(certificate.not_before().seconds(), 1_700_000_000);
    assert_eq!(certificate.not_after().seconds(), 1_857_680_000);
    let verifier = certificate.verifier();
    assert_eq!(verifier.public_key_pem(), RSA_PUBLIC);
    assert_eq!(Verifier::from_certificate_pem(certificate.pem()), Ok(verifier));
}

#[test]
fn any_serial_becomes_40_digits() {
    for first in [0x00, 0x0f, 0x80, 0xff] {
        let serial = [first; 20];
        let pem = self_signed(RSA, "x", serial, Timestamp::from_ms(0), Timestamp::from_ms(1000));
        assert_eq!(Certificate::from_pem(&pem.unwrap()).unwrap().serial().len(), 40);
    }
}

#[test]
fn serials_compare_as_numbers() {
    for (one, other, same) in [
        ("4A00", "4a00", true),
        ("004A00", "4a00", true),
        ("4A00", "4A0", false),
        ("", "0", true),
        ("PUB_KEY_ID_01", "PUB_KEY_ID_01", true),
        ("PUB_KEY_ID_01", "PUB_KEY_ID_1", false),
    ] {
        assert_eq!(same_serial(one, other), same, "{one} {other}");
        assert_eq!(seal::normal_serial(one) == seal::normal_serial(other), same, "{one} {other}");
    }
}

#[test]
fn fields_are_encrypted_to_their_owner_only() {
    let owner = Signer::from_pem(RSA).unwrap();
    let closed = owner.verifier().encrypt_oaep("张三".as_bytes()).unwrap();
    assert_eq!(owner.decrypt_oaep(&closed).as_deref(), Ok("张三".as_bytes()));
    let stranger = Signer::from_pem(&generate_rsa().private_pem).unwrap();
    assert_eq!(stranger.decrypt_oaep(&closed), Err(OaepError::Undecryptable));
    assert_eq!(owner.decrypt_oaep("?"), Err(OaepError::NotBase64));
    assert_eq!(owner.decrypt_oaep(""), Err(OaepError::Undecryptable));
    assert!(owner.verifier().encrypt_oaep(&[0; 214]).is_ok());
    let too_long = OaepError::TooLong { bytes: 215, most: 214 };
    assert_eq!(owner.verifier().encrypt_oaep(&[0; 215]), Err(too_long));
    let sm2 = &SIGNERS[1];
    assert_eq!(sm2.verifier().encrypt_oaep(b"x"), Err(OaepError::NotRsa(Scheme::Sm2)));
    assert_eq!(sm2.decrypt_oaep("x"), Err(OaepError::NotRsa(Scheme::Sm2)));
}

#[test]
fn keys_do_not_print_themselves() {
    let pair = generate_ed25519();
    let secret = pair.private_pem.lines().nth(1).unwrap();
    assert!(!format!("{pair:?} {:?}", Signer::from_pem(&pair.private_pem)).contains(secret));
    assert_eq!(format!("{:?}", *SIGNERS), "[Signer(RSA, …), Signer(SM2, …), Signer(Ed25519, …)]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every scheme signs every message; one flipped bit anywhere spoils it.
    #[test]
    fn signatures_hold_for_their_message_only(
        message in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        for signer in &*SIGNERS {
            let signature = signer.sign(&message);
            let verifier = signer.verifier();
            prop_assert!(verifier.verify(&message, &signature));
            let flip = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                bytes
            };
            prop_assert!(!verifier.verify(&flip(&message), &signature));
            prop_assert!(!verifier.verify(&message, &flip(&signature)));
        }
    }

    #[test]
    fn any_signature_bytes_are_answered(signature in prop::collection::vec(any::<u8>(), 0..300)) {
        for signer in &*SIGNERS {
            prop_assert!(!signer.verifier().verify(b"message", &signature));
        }
    }

    #[test]
    fn any_file_is_answered(der in prop::collection::vec(any::<u8>(), 0..60), label in 0usize..4) {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let label = ["PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY", "CERTIFICATE"][label];
        let body = STANDARD.encode(der);
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        prop_assert!(Signer::from_pem(&text).is_err());
        prop_assert!(Verifier::from_public_key_pem(&text).is_err());
        prop_assert!(Certificate::from_pem(&text).is_err());
    }
}
