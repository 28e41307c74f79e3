use super::*;

/// Made by libcrypt 4.4, by OpenSSL 3 (`opensslsalt`) and taken from the argon2 reference's own tests (`password`).
const KNOWN: &[(&str, &str)] = &[
    ("correct horse", "$y$j9T$MV5FzXqKs8cHwqEr9kTn1.$AZRoG3HwT6i6h4VWlJ6h7XglSbGazCTdWGfTZLaDHA."),
    ("pässwörd", "$y$j75$abcdefgh$Bhlb5lbzrOeSFheILpoKUrQhV2EEEBDgsUaXBplDotA"),
    (
        "correct horse",
        "$6$saltstring$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/",
    ),
    (
        "correct horse",
        "$6$rounds=10000$saltstringsaltst$uWkfitxWIj/pKw1nBSBgiQR8Pwbr7IMycYT33N8JITrE33DUmC8bV6rVVtFeP/iZRI3xx58jHgvVgQRG8FBmF/",
    ),
    ("correct horse", "$5$rounds=1400$anotherlongsalts$0KT8xKdzAzHA/GLeLkewBNfWJasAb9.GxP2bbi2wnX1"),
    ("correct horse", "$5$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC"),
    (
        "correct horse",
        "$6$opensslsalt$MoF2A/2FvWUOfdRMZPQEn6RfKUX0/B3JbTPgbbtgMLvAHKVJJ1pOHQEzuvREdvvsW/zAd/vUnOAm1T3zNw/xY1",
    ),
    ("correct horse", "$5$opensslsalt$NGvcAdUVVMJQ8e/U8iO6F6UuWL6FOQMUlW8RN1Adg2C"),
    ("password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
    ("a:b {PLAIN} $6$", "{PLAIN}a:b {PLAIN} $6$"),
];

#[test]
fn hashes_of_other_programs_know_their_passwords() {
    for (password, hash) in KNOWN {
        let parsed = Hash::parse(hash).unwrap_or_else(|what| panic!("{hash}: {what}"));
        assert!(parsed.is_of(password.as_bytes()), "{hash}");
        let longer = format!("{password} ");
        for wrong in ["", "x", &password[1..], longer.as_str()] {
            assert!(!parsed.is_of(wrong.as_bytes()), "{hash}: {wrong:?}");
        }
    }
}

#[test]
fn what_we_write_we_read() {
    for scheme in [Scheme::Argon2id, Scheme::ScramSha256, Scheme::Plain] {
        let text = Hash::make(scheme, b"tanstaaftanstaaf").unwrap();
        let hash = Hash::parse(&text).unwrap();
        assert_eq!(hash.successor(), scheme);
        assert!(hash.is_of(b"tanstaaftanstaaf") && !hash.is_of(b"tanstaaftanstaa"), "{text}");
    }
    assert_ne!(Hash::make(Scheme::Argon2id, b"x"), Hash::make(Scheme::Argon2id, b"x"), "salts differ");
    assert_eq!(Hash::make(Scheme::Plain, b"a\nroot:{PLAIN}b"), None);
    assert_eq!(Hash::make(Scheme::Argon2id, b""), None);
}

#[test]
fn dear_and_broken_hashes_are_refused_unhashed() {
    let argon2 = |params: &str| {
        format!("$argon2id$v=19${params}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
    };
    let key = STANDARD.encode([1; 32]);
    for (text, said) in [
        (argon2("m=524288,t=2,p=1"), "256 MiB"),
        (argon2("m=65536,t=200,p=1"), "1 GiB"),
        (argon2("m=4,t=1,p=1"), "no PHC string"),
        ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ".to_owned(), "no PHC string"),
        (argon2("m=65536,t=2,p=1").replace("argon2id", "argon2d"), "no known scheme"),
        ("$6$rounds=999999999$salt$x".to_owned(), "1000000 rounds"),
        ("$6$rounds=10$salt$x".to_owned(), "1000000 rounds"),
        ("$6$salt$short".to_owned(), "no SHA-crypt string"),
        (KNOWN[0].1.replace("j9T", "jHT"), "256 MiB"),
        (KNOWN[0].1.replace("j9T", "j9T.1"), "no yescrypt string"),
        (KNOWN[0].1.replace("A.", "A"), "no yescrypt string"),
        (format!("$scram-sha-256$100$MTIzNDU2Nzg=${key}${key}"), "4096"),
        (format!("$scram-sha-256$4096$MTI=${key}${key}"), "salt"),
        (format!("$scram-sha-256$4096$MTIzNDU2Nzg=${key}$AAAA"), "no keys of SCRAM"),
        ("$1$salt$x".to_owned(), "no known scheme"),
        ("secret".to_owned(), "no known scheme"),
        ("{PLAIN}".to_owned(), "1 to 480"),
    ] {
        let error = Hash::parse(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}
