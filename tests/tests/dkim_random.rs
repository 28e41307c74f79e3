//! Whatever a message is like, mail-auth finds our signatures of it right.

#[path = "dkim/verifiers.rs"]
#[allow(dead_code, reason = "one verifier of several")]
mod verifiers;

use message::UnixMillis;
use message::dkim::{DomainSigners, Key, SelectorKey, Signers, Terms, name_of};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use tests::names::{Names, Said};
use verifiers::{by_mail_auth, by_signature, mail_auth, run};

const DOMAIN: &str = "here.test";

struct World {
    signers: Signers,
    names: Names,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = |selector: &str, pem: &str| SelectorKey {
        selector: selector.into(),
        key: Key::from_pem(pem.as_bytes()).expect("a key of the tests"),
    };
    let keys = vec![
        key("r1", include_str!("../../message/tests/dkim/rsa-pkcs8.pem")),
        key("e1", include_str!("../../message/tests/dkim/ed25519.pem")),
    ];
    let record =
        |signer: &SelectorKey| (name_of(&signer.selector, DOMAIN), signer.key.record().expect("a record"));
    let records: HashMap<String, String> = keys.iter().map(record).collect();
    let terms = Terms::new(["From", "Subject", "Reply-To"], ["To", "Cc", "References"]);
    let domain = DomainSigners {
        domain: DOMAIN.into(),
        identity: Some("news@here.test".into()),
        subdomains: false,
        terms: Arc::new(terms),
        keys,
    };
    let mut signers = Signers::new(1, false);
    signers.insert(DOMAIN, Arc::new(domain));
    World {
        signers,
        names: Names::start(move |name, _| records.get(name).map_or(Said::NoName, |text| Said::text(text))),
    }
});

/// A field of any kind, folded anywhere.
fn field() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["Subject", "TO", "cc", "References", "X-Any", "Received", "reply-to"]);
    (name, "([ -9;-~é世]|[ \t]{1,3}|\r\n[ \t]x){0,60}")
        .prop_map(|(name, value)| format!("{name}:{value}\r\n"))
}

/// A body whose last line is not white space alone: mail-auth 0.13.3 digests such a one wrong (its issue 62).
fn body() -> impl Strategy<Value = String> {
    "(([ -~é世]|[ \t]{1,3}|\r\n){0,80}[a-z](\r\n){0,3})?"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn mail_auth_verifies_what_we_sign(before in prop::collection::vec(field(), 0..6), after in prop::collection::vec(field(), 0..6), body in body()) {
        let message = format!("{}From: \"Ann\" <ann@here.test>\r\n{}\r\n{body}", before.concat(), after.concat());
        let signed = WORLD.signers.fields_for(message.as_bytes(), UnixMillis(1_700_000_000_000)).expect("it can be signed");
        let mut content = signed.expect("its author's domain has keys").fields;
        content.extend_from_slice(message.as_bytes());
        let each = by_signature(&content, DOMAIN);
        prop_assert_eq!(each.len(), 2);
        let held: Vec<Result<(), String>> = run(async {
            let names = mail_auth(WORLD.names.address);
            vec![by_mail_auth(&names, &each[0].1).await, by_mail_auth(&names, &each[1].1).await]
        });
        prop_assert_eq!(held, vec![Ok(()), Ok(())], "{}", message);
    }
}
