//! Known answers of the WeChat Pay protocol, and one of OpenSSL for SM2.
//!
//! The keys beside this file are throw-away keys made for tests. They protect nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use seal::{Signer, Verifier, aead, digest};

const RSA_PKCS8: &str = include_str!("throwaway_rsa.pkcs8.pem");
const RSA_PKCS1: &str = include_str!("throwaway_rsa.pkcs1.pem");
const RSA_PUBLIC: &str = include_str!("throwaway_rsa.public.pem");
const SM2_PKCS8: &str = include_str!("throwaway_sm2.pkcs8.pem");
const SM2_PUBLIC: &str = include_str!("throwaway_sm2.public.pem");

const TIME: &str = "1700000000";
const NONCE: &str = "593BEC0C930BF1AFEB40B4A08C8FB242";
const APPID: &str = "wx2421b1c4370ec43b";
const PREPAY: &str = "wx201410272009395522657a690389285100";
const B1: &str = r#"{"appid":"wx2421b1c4370ec43b","mchid":"1900000109","description":"测试商品","out_trade_no":"T20231114001","notify_url":"https://example.com/notify","amount":{"total":100,"currency":"CNY"},"payer":{"openid":"oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}}"#;
const B2: &str = r#"{"prepay_id":"wx201410272009395522657a690389285100"}"#;
const B3: &str = r#"{"filename":"a.png","sha256":"e90137d39de304eefbbe788bc535c7e82f27abbf8069505fbbd8a9dcdc4f2024"}"#;

#[track_caller]
fn check(name: &str, message: String, sha256: &str, signature: &str) {
    assert_eq!(digest::sha256_hex(message.as_bytes()), sha256, "message of {name}");
    for private in [RSA_PKCS8, RSA_PKCS1] {
        let signer = Signer::rsa_from_pem(private).unwrap();
        assert_eq!(signer.sign_base64(message.as_bytes()), signature, "signature of {name}");
    }
    let verifier = Verifier::from_public_key_pem(RSA_PUBLIC).unwrap();
    assert!(verifier.verify_base64(message.as_bytes(), signature), "{name} does not verify");
    let longer = message + " ";
    assert!(!verifier.verify_base64(longer.as_bytes(), signature), "{name} verifies changed");
}

#[test]
fn rsa_signatures() {
    check(
        "create JSAPI",
        format!("POST\n/v3/pay/transactions/jsapi\n{TIME}\n{NONCE}\n{B1}\n"),
        "398518aabac341ba1dc59f4e20719853e73a2c6244e8084bf6a7d9b32cadbd62",
        "oqE571Nf7THNfO3A8hGkebk7yIZFSIz+t39e6CckpGuFI6Ofo4Pb6EtPw84LQsgl4ypFdnaGMjfvsVeT\
         +3JV83WOAnlmNGJp1gf/FLllzQD3gmTPQl0PFwUN3mOGn3Z3DNv0LOp9BcaDsjI8cYOQ/n+FL5DggFGs\
         25Caq+cVMQ5OT+iElJW54K2Unjbdn9b0n7qaWc9HNiegu2dbQtI1aDxMjWaf89qXn/Jzbz0mN23U5ZEq\
         L2YUTh7bqWFCAsMB5qqfUSfxAoaSSIl7KtKMCh8NFTHokMS1bVBJjsMmOFuCKxwsCh/dnopL9Ae2XcJ5\
         weDb3+zCVHR7ke1aXUpCJw==",
    );
    check(
        "query",
        format!(
            "GET\n/v3/pay/transactions/out-trade-no/T20231114001?mchid=1900000109\n{TIME}\n{NONCE}\n\n"
        ),
        "5766bf8c98b52ebd952799fabcfe98039d568ea7b5104dc5762d4e2ed2b17a58",
        "KBTTQNVY60a5Hg6O4Z43nGSakyHBxKKHxsmWBCxE0YSNCx1KF28C7S8zuT5KChQA35FMVNqTvKYwdcLN\
         CYHJwWbdQtv2PcDVBCNAtWjlVSB9Q40pEE81RRTKfO0h7gqHUVtaWJzaQCPwPFnoFLPzdOXJvw7BqcAU\
         vugLwB2to8DE9xMCQ4xVaKCjSWjmkpDXL6Cmv1wAuX/wZjMEdMPIJrq8IKX7OdysoyeAtKdmhOif5w2R\
         EMw/OQ6C4V/wvbIby9epwjz5zn4X2OmxI/Ilt4R7vJ8zkqQli5cJvcxx95P6CsoQNFPycLRdUKeDpwIb\
         a5QxLMDXQRhhIMLOFtUXng==",
    );
    check(
        "upload (the meta part is signed)",
        format!("POST\n/v3/merchant/media/upload\n{TIME}\n{NONCE}\n{B3}\n"),
        "52ffa6941b76df6959ce269200992f38c441b9f684ecd482891746e4c29fadf9",
        "AXd+HxhRYOceeXfp37uFT0vsDehlh6z52mpkusST10EJ43m0AQZw0KghT5beX/zmHKXM1Ez8m5IU8udh\
         0v56hZqu91jxVsVA1Vls8YpOIeBsUg90td22qUMxdHwBuK24M4MlTDLQOsN0Utd/p+f9AjA5s6/SZj8q\
         ugpLDMhtt7iM5YcKk8mded1HVQoclJwKzMWRd6+SDaD9BuVdgYCsaaeriRX5bddavmF8KclkUK3AZvob\
         MYoPTfcmUVZs+D0NRaqD/QuEr8Rcs92wT8qWFlFYmTdghjMXzhuknGmubjDFstFBH8u7isLDJKubO3mO\
         lRWPwrRCYbScxECMel6oOg==",
    );
    check(
        "answer",
        format!("{TIME}\n{NONCE}\n{B2}\n"),
        "37d50849a209987b936284ef02db483df46630936a203154e4fe91ee48fd64f4",
        "YZEm3+sP9tqIlFU4NyLMMqY0Xklo5bFNzdkVZkDXPa07Wrr9LPXRIa2jMSu7lhHabY6TbKslG6p+Dfmp\
         DW2oNzwZGiaZVh4zXc7GpFCKO83xBdsuC1FN3FKoRSTRRpOSo84afu+1w/yz5ezpMos5u930JL1IjyvA\
         B6ZvCE6KCQvVb35+TIHgvwp28jWbvy8elzSc4s0jPRYn64qKfjZ2wd0q0gabB99ul4kahejlO41JsWlC\
         YOn4zLFybEMWoGMZ4rbB+FkN0m/VdhIZWlI9vJZVM/LC94F1Ddxl8m9fpr1CE027bdtiRoYZobaeZMqP\
         vyLD6fl31AbR6Bvz58SYqA==",
    );
    check(
        "answer 204",
        format!("{TIME}\n{NONCE}\n\n"),
        "ecb064ea4546d97f9af92e9ef928b8fdd296c4cc2d7c05c1b635fbb16ff352c3",
        "IYLHsODHwkF3rxJ/rju6GiF2BQLeXC1pzp12QEQDv0a6MP5R87UVhIRlMY1mMPFU5PaKo5cOZ2Oimp2O\
         IjkIqHgxLAsauyhbRBaORE5nYrW2+XwmAuZKZeIePnQEdyMIyacTN+YEQMpWihi1caQN6v3hGOPnk1Am\
         v0rLwr5fTT/WGB3Z703oCFO9um3vGxcau/Y6GewnmyCXO4lFD+yYD3bztYpd0ouXjtjsRD5GR9271MVE\
         q9vAb3SUpdDjSaQB81Tmqnro+SCJAiTbWJ1ozaGypbJm1HpvrlxQgvJMjsWVyHmkwDakW4k/qIjNVOby\
         vEUXsjiKkRF6euOwCNEqqA==",
    );
    check(
        "paySign for JSAPI",
        format!("{APPID}\n{TIME}\n{NONCE}\nprepay_id={PREPAY}\n"),
        "2bd6b49ea15d640a06e3a77f281e33900769e0d66cd696dcc28c278c17f90dea",
        "llNoPPyypKZ2ApXL/qvuqyq67u4Sv/BA82B94tnSyUSMJgjBgpzFv2YgY1rjQ5C7YBTtkO55O7mDL2FJ\
         fGfO8k+rPLGqaVS6KoDuO+GLFt9eC7Ch6lK1VBSMdb2TlVj5apEIo57cnW7g+F6p0SbrZonty5yzCyFB\
         aVTRuMgJSCDova6L0jTcn/EwRnyebw777g4G6LP41K6Khc+en3HRlLsggFSbBuyr5znLKYfaJQURmIqN\
         L1jgPttDcyZW9I5qFG17+xuJsu+IjAcgVR5u3JjPtgM/LT9T6aWSKfCNEH7yrUX6x2u4N+slR26z5Xdd\
         mTRbwYuc3JaJ+byGSpa/SA==",
    );
    check(
        "sign for App",
        format!("{APPID}\n{TIME}\n{NONCE}\n{PREPAY}\n"),
        "39a489f8bc95eda740615c78ca2aabee73516c5eda4debc8faea5d76ecfca6f7",
        "Yv37IqeSCUekO9qkUfmMd1OLeX+ov3BDEO/CeMGGv8RiphmxHgcV5z5sCKdPVpvRFkmDfVgbykTCrDnq\
         +R/pdg8T5TZdQgpQ+mj2t4iMlv4Fv6ySbT1ovxlCdQBfjWUPLKo+Mb5TiqAp/lFt8oKX3efbhKxc1gAf\
         z0AMP+vb9abItT5AIxsHJLkkIrz9iK6YRtKJt7crtqpJ+9DvT6h3k70VJP7bTOlAZmfxuL5MAt9gpuH7\
         LjjOcBrfRg4O69sxJzo6RlDMAc8fDIpqISJAL8h5iZIvzg8yRNCt4ZOliIQWdycV1klNFoAtyvMkLN3T\
         pL6asq5gm+ztOi5WA+8yVA==",
    );
}

#[test]
fn a_private_key_knows_its_public_half() {
    assert_eq!(Signer::from_pem(RSA_PKCS8).unwrap().public_key_pem(), RSA_PUBLIC);
    assert_eq!(Signer::from_pem(RSA_PKCS1).unwrap().public_key_pem(), RSA_PUBLIC);
    assert_eq!(Signer::from_pem(SM2_PKCS8).unwrap().public_key_pem(), SM2_PUBLIC);
}

/// Made with `openssl dgst -sm3 -sign KEY -sigopt distid:1234567812345678`.
#[test]
fn an_sm2_signature_of_openssl_verifies() {
    let message = format!("GET\n/v3/certificates\n{TIME}\n{NONCE}\n\n");
    let signature = "MEUCIQDGu7bbX7CNDC89D7trI8VTeCeYCWHYgNHKgrv4xCMLHgIgDtivAgOQzpMyG7An8YvlEGg43QmqGGCP36AHeBcPmIs=";
    let verifier = Verifier::from_public_key_pem(SM2_PUBLIC).unwrap();
    assert!(verifier.verify_base64(message.as_bytes(), signature));
    assert!(!verifier.verify_base64(b"something else", signature));
}

#[test]
fn oaep_field() {
    let closed = "Y3gk5/EQkvAPNMlEzqMqFR88Hkdvzi6+KnvIdE7SOX6gqWTzAiLOcFCbY343KTXcsPtItZQCzLY/vXm6\
         qOYsu5NxlscQ5Rjncywp5aO+OV3DDYGgkWBT9Xz4M4Y4c7BsxwUp71Z3iyTWTG3kd1Mzpj8+Io09Pg1m\
         uahDmQvmOKAq7Ydh6JiTphKqfu8Y1zahK/mE1x3n2OpNDgEVZvpuP0n6OetJ4hUUE5An6EeCHpvptKAp\
         jiYU/TyLdiEriuU4uuXtdffDI/zvYFE6/67p8lNOT8fv2hedOGwXdxZwpxMDx12sUiOtpZT1uzJMAfXx\
         qBxSWaEocv7Tp4TVSygO3A==";
    let signer = Signer::rsa_from_pem(RSA_PKCS8).unwrap();
    assert_eq!(signer.decrypt_oaep(closed).unwrap(), "张三".as_bytes());
}

#[test]
fn aes_gcm_of_a_notification() {
    let key = b"0123456789abcdef0123456789ABCDEF";
    let nonce = b"fdasflkja484";
    let plain = r#"{"mchid":"1900000109","out_trade_no":"T20231114001","trade_state":"SUCCESS"}"#;
    let closed = "bz1kVndYkCFlgKSe7VZeuBxDb6Dr2XsMVxgLZBGofcEd7SUTxiqQu/BGnpamPaGRilgVGG76GP/aa6ZV\
         Mf18tl5niAU4bH3CzGXxxXMyF6PM43BV9XB8TCjYRIw=";
    let sealed = aead::seal_gcm(key, nonce, b"transaction", plain.as_bytes());
    assert_eq!(STANDARD.encode(&sealed), closed);
    let opened = aead::open_gcm(key, nonce, b"transaction", &sealed);
    assert_eq!(opened.as_deref(), Ok(plain.as_bytes()));
}

#[test]
fn v2_signatures() {
    let check = |appid: &str, md5: &str, hmac: &str| {
        let key = "192006250b4c09247ec02edce69f6a2d";
        let text = format!(
            "appid={appid}&body=test&device_info=1000&mch_id=10000100\
             &nonce_str=ibuaiVcKdpRxkhJA&key={key}"
        );
        assert_eq!(digest::md5_hex_upper(text.as_bytes()), md5);
        assert_eq!(digest::hmac_sha256_hex_upper(key.as_bytes(), text.as_bytes()), hmac);
    };
    check(
        "wx2421b1c4370ec43b",
        "18F67CFD0DA3DC1FE014E8094991E71D",
        "D1F262DE7CDAC3C6479640334DA1D326E110B4BD39A116A19EDF86E41394A023",
    );
    // The official sample.
    check(
        "wxd930ea5d5a258f4f",
        "9A0A8659F005D6984697E2CA0A9CF3B7",
        "6A9AE1657590FD6257D693A078E1C3E4BB6BA4DC30B23E0EE2496E54170DACD6",
    );
}

#[test]
fn v2_refund_notice() {
    let key = digest::md5_hex(b"192006250b4c09247ec02edce69f6a2d");
    assert_eq!(key, "d96eb16afdd491fa1e705096edbc2205");
    let key: [u8; 32] = key.as_bytes().try_into().unwrap();
    let plain =
        "<root><out_refund_no>R1</out_refund_no><refund_status>SUCCESS</refund_status></root>";
    let closed = "WBzGpzQuNpcFxIlFjUUD9CdH4BF3YHmtiHaWV8j0mqDmyt1ktL6KiRuDf54lmRtRsuivy+W7GOHBqU/p\
         CYFHI29h5zsVoYNuky4WwJWgve1lKN3BmGhU1XAFvvxnrPcC";
    assert_eq!(STANDARD.encode(digest::aes256_ecb_encrypt(&key, plain.as_bytes())), closed);
    let opened = digest::aes256_ecb_decrypt(&key, &STANDARD.decode(closed).unwrap());
    assert_eq!(opened.as_deref(), Ok(plain.as_bytes()));
}

#[test]
fn medical_insurance_digest() {
    // The rule upper-cases the number first.
    let number = "44030019000101123x".to_ascii_uppercase();
    assert_eq!(digest::md5_hex(number.as_bytes()), "09eb26e839ff3a2e3980352ae45ef09e");
}
