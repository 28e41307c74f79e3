//! Keys and messages of these tests. None of the keys is of any use elsewhere.

pub(super) const RSA_PKCS8: &str = include_str!("../../tests/dkim/rsa-pkcs8.pem");
/// The same key.
pub(super) const RSA_PKCS1: &str = include_str!("../../tests/dkim/rsa-pkcs1.pem");
/// Its public part as an RSAPublicKey in base64.
pub(super) const RSA_PKCS1_PUBLIC: &str = include_str!("../../tests/dkim/rsa-pkcs1-public.txt");
/// RFC 8463 §A.1.
pub(super) const ED25519: &str = include_str!("../../tests/dkim/ed25519.pem");

pub(super) const RSA_1024: &str = include_str!("../../tests/dkim/rsa-1024.pem");
pub(super) const P256: &str = include_str!("../../tests/dkim/p256.pem");
pub(super) const ENCRYPTED: &str = include_str!("../../tests/dkim/encrypted.pem");

/// RFC 8463 §A.3, its lines ending in LF.
pub(super) const FOOTBALL: &str = include_str!("../../tests/dkim/football.eml");
/// §A.2.
pub(super) const FOOTBALL_RSA_PUBLIC: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";
/// §A.3.
pub(super) const FOOTBALL_RSA_SIGNATURE: &str = "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2JzdA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=";

/// What we put on top of that message, its lines ending in LF; verified by others when it was taken down.
pub(super) const FOOTBALL_SIGNED: &str = include_str!("../../tests/dkim/football.signed");
