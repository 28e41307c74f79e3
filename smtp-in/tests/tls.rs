//! Sessions through TLS, 1.2 and 1.3, cut anywhere: what begins anew, whose certificate is whose, how it ends.

// A test may panic.
#![allow(clippy::unwrap_used)]

mod dialog;
mod tls_client;

use aws_lc_rs::digest::{SHA256, digest};
use dialog::settings::Settings;
use rustls::ClientConfig;
use smtp_in::door::{Answer, Certificate};
use smtp_in::{Identity, Mechanism, TlsServer, TlsServerError, TlsUse, TurnUse};
use std::sync::Arc;
use std::time::Duration;
use tls_client::{Wire, authority, client, identity, self_signed, server, signed_by};

const PIECES: [usize; 3] = [usize::MAX / 2, 7, 1];

fn settings(tls: &Arc<TlsServer>, tls_use: TlsUse) -> Settings {
    let mut settings = Settings::new();
    (settings.policy.tls, settings.policy.tls_use) = (Some(Arc::clone(tls)), tls_use);
    settings
}

fn implicit(tls: &Arc<TlsServer>, client: &Arc<ClientConfig>) -> Wire {
    let mut wire = Wire::new(settings(tls, TlsUse::Implicit), client, "mx.example.org");
    wire.run();
    wire
}

/// Up to our `220`.
fn offered(tls: &Arc<TlsServer>, client: &Arc<ClientConfig>, piece_len: usize) -> Wire {
    let mut wire = Wire::new(settings(tls, TlsUse::Offer), client, "mx.example.org");
    wire.piece_len = piece_len;
    assert_eq!(wire.plainly(""), "220 mx.example.org ESMTP ringpost\r\n");
    assert!(wire.plainly("EHLO before.example\r\n").contains("250-STARTTLS\r\n"));
    assert_eq!(wire.plainly("STARTTLS\r\n"), "220 2.0.0 Begin TLS now\r\n");
    wire
}

#[test]
fn starttls_begins_anew_and_says_so_in_the_trace() {
    let tls = server(vec![identity("mx.example.org")], None);
    for (is_tls12, piece_len) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 2)] {
        let mut wire = offered(&tls, &client(None, is_tls12), PIECES[piece_len]);
        assert_eq!(wire.say("MAIL FROM:<a@example.org>\r\n"), "503 5.5.1 EHLO or HELO first\r\n");
        let extensions = wire.say("EHLO after.example\r\n");
        assert!(
            !extensions.contains("STARTTLS") && extensions.contains("250-REQUIRETLS\r\n"),
            "{extensions}"
        );
        let mail = "MAIL FROM:<a@example.org> REQUIRETLS\r\nRCPT TO:<b@example.net>\r\nBDAT 2 LAST\r\nhi";
        assert_eq!(wire.say(mail), "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        let submission = wire.stored.pop().unwrap();
        assert_eq!((submission.helo.as_str(), submission.with), ("after.example", "ESMTPS"));
        assert!(submission.envelope.requires_tls && submission.client.is_encrypted);
        let encrypted = submission.encrypted.unwrap();
        assert_eq!(encrypted.version, if is_tls12 { "TLS 1.2" } else { "TLS 1.3" });
        assert!(encrypted.cipher.starts_with("TLS"), "{}", encrypted.cipher);
        wire.store();
        assert!(wire.say("QUIT\r\n").ends_with("221 2.0.0 Bye\r\n"));
        assert!(wire.is_closed && wire.was_said_goodbye);
        assert_eq!(wire.asked.len(), 1, "nothing new is known of who comes");
    }
}

#[test]
fn plain_text_behind_starttls_is_thrown_away() {
    let tls = server(vec![identity("mx.example.org")], None);
    for piece_len in PIECES {
        let mut wire = Wire::new(settings(&tls, TlsUse::Offer), &client(None, false), "mx.example.org");
        wire.piece_len = piece_len;
        wire.plainly("");
        wire.plainly("EHLO before.example\r\n");
        let injected = "STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.org>\r\n";
        assert_eq!(wire.plainly(injected), "220 2.0.0 Begin TLS now\r\n");
        assert_eq!(wire.say("RCPT TO:<b@example.net>\r\n"), "503 5.5.1 MAIL first\r\n");
        assert_eq!(wire.say("MAIL FROM:<a@example.org>\r\n"), "503 5.5.1 EHLO or HELO first\r\n");
    }
}

#[test]
fn starttls_waits_for_the_replies_before_it() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = Wire::new(settings(&tls, TlsUse::Offer), &client(None, false), "mx.example.org");
    wire.plainly("");
    wire.plainly("HELO a\r\n");
    wire.plainly("MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nBDAT 2 LAST\r\nhi");
    assert_eq!(wire.plainly("STARTTLS\r\n"), "");
    wire.store();
    assert!(wire.plainly("").ends_with("220 2.0.0 Begin TLS now\r\n"));
    assert_eq!(wire.say("NOOP\r\n"), "250 2.0.0 Ok\r\n");
}

#[test]
fn implicit_tls_says_nothing_before_it() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = Wire::new(settings(&tls, TlsUse::Implicit), &client(None, false), "mx.example.org");
    assert!(!wire.session.take_replies(&mut Vec::new()) && wire.session.poll_output().is_none());
    assert_eq!(wire.say(""), "220 mx.example.org ESMTP ringpost\r\n");
    assert!(matches!(&wire.asked[..], [client] if client.is_encrypted && client.certificate.is_none()));
    wire.say("EHLO a\r\n");
    assert_eq!(wire.say("STARTTLS\r\n"), "502 5.5.1 Command not offered\r\n");
}

#[test]
fn proxy_header_comes_before_the_handshake() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Implicit);
    settings.arrival.is_proxied = true;
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    assert_eq!(wire.plainly("PROXY TCP4 198.51.100.7 203.0.113.9 56324 465\r\n"), "");
    assert_eq!(wire.say(""), "220 mx.example.org ESMTP ringpost\r\n");
    assert!(format!("{:?}", wire.asked[0].origin).contains("198.51.100.7"));
}

#[test]
fn certificate_is_that_of_the_name_that_is_asked_for() {
    let names = ["mx.example.org", "*.example.net", "mx.example.net"];
    let identities: Vec<Identity> = names.into_iter().map(identity).collect();
    let chains: Vec<_> = identities.iter().map(|identity| identity.chain[0].clone()).collect();
    let tls = server(identities, None);
    let wanted = [
        ("mx.example.org", 0),
        ("MX.Example.NET", 2),
        ("a.example.net", 1),
        ("a.b.example.net", 0),
        ("example.net", 0),
        ("other.example", 0),
        ("192.0.2.25", 0),
    ];
    for (host, index) in wanted {
        let mut wire = Wire::new(settings(&tls, TlsUse::Implicit), &client(None, false), host);
        wire.run();
        assert_eq!(wire.shown(), chains[index], "{host}");
    }
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    assert!(matches!(TlsServer::new(Vec::new(), None), Err(TlsServerError::NoIdentity)));
    let mut mixed = identity("mx.example.org");
    mixed.key = identity("mx.example.net").key;
    let error = TlsServer::new(vec![identity("mx.example.org"), mixed], None).unwrap_err();
    assert!(matches!(error, TlsServerError::Identity { index: 1, .. }), "{error}");
    let roots = Some(vec![b"no certificate".as_slice().into()]);
    let error = TlsServer::new(vec![identity("mx.example.org")], roots).unwrap_err();
    assert!(matches!(error, TlsServerError::Roots(1)), "{error}");
}

#[test]
fn client_certificates_are_taken_and_told_apart() {
    let authority = authority();
    let tls = server(vec![identity("mx.example.org")], Some(vec![authority.der().clone()]));
    let vouched = signed_by(&authority, "client.example");
    for (shown, is_verified) in [(vouched, true), (self_signed("client.example"), false)] {
        let sha256: [u8; 32] = digest(&SHA256, &shown.0).as_ref().try_into().unwrap();
        let expected = Some(Certificate { sha256, is_verified });
        for is_tls12 in [false, true] {
            let config = client(Some((shown.0.clone(), shown.1.clone_key())), is_tls12);
            let mut first = implicit(&tls, &config);
            assert_eq!(first.asked[0].certificate, expected);
            first.say("NOOP\r\n");
            let second = implicit(&tls, &config);
            assert!(second.is_resumed());
            assert_eq!(second.asked[0].certificate, expected, "as in the session that is resumed");
        }
    }
    let none = implicit(&tls, &client(None, false));
    assert_eq!((none.asked.len(), &none.asked[0].certificate), (1, &None));
}

#[test]
fn certificate_without_its_key_is_none() {
    let tls = server(vec![identity("mx.example.org")], Some(Vec::new()));
    let (certificate, _) = self_signed("client.example");
    let (_, key) = self_signed("client.example");
    let wire = implicit(&tls, &client(Some((certificate, key)), false));
    assert!(wire.asked.is_empty() && wire.is_closed && wire.error.is_some());
}

#[test]
fn certificate_behind_starttls_is_a_new_introduction() {
    let tls = server(vec![identity("mx.example.org")], Some(Vec::new()));
    let config = client(Some(self_signed("client.example")), false);
    let mut wire = offered(&tls, &config, 7);
    wire.answers.push(Answer::Turned(dialog::refusal("554", "5.7.1", "Not with this certificate")));
    assert_eq!(wire.say("EHLO a\r\n"), "554 5.7.1 Not with this certificate\r\n");
    assert!(wire.is_closed && wire.was_said_goodbye);
    assert!(wire.asked[0].certificate.is_none() && wire.asked[1].certificate.is_some());
}

#[test]
fn whom_a_front_server_named_in_plain_text_is_forgotten() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Offer);
    settings.rights.may_xclient = true;
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    wire.plainly("");
    assert!(wire.plainly("XCLIENT ADDR=198.51.100.7 HELO=named.example\r\n").starts_with("220 "));
    wire.plainly("EHLO a\r\nSTARTTLS\r\n");
    wire.say("EHLO b\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nBDAT 2 LAST\r\nhi");
    assert_eq!((&wire.asked[0].origin, wire.asked.len()), (&wire.asked[2].origin, 3));
    assert_ne!(wire.asked[0].origin, wire.asked[1].origin);
    assert_eq!(wire.stored[0].helo, "b");
}

#[test]
fn sessions_are_resumed_at_the_same_listener_alone() {
    let tls = server(vec![identity("mx.example.org")], None);
    let config = client(None, false);
    assert!(!implicit(&tls, &config).is_resumed());
    assert!(implicit(&tls, &config).is_resumed());
    let other = server(vec![identity("mx.example.org")], None);
    assert!(!implicit(&other, &config).is_resumed());
}

#[test]
fn failed_handshake_ends_in_an_alert_and_no_word() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = offered(&tls, &client(None, false), 7);
    let mut out = Vec::new();
    let said = b"MAIL FROM:<evil@example.org>\r\n";
    assert_eq!(wire.session.handle_bytes(wire.now, &mut wire.door, said), said.len());
    wire.session.take_replies(&mut out);
    assert_eq!((out[0], out.len()), (21, 7), "one alert: {out:?}");
    wire.run();
    assert!(wire.is_closed);
}

#[test]
fn handshake_has_its_time_and_octets_win_none() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = offered(&tls, &client(None, false), 7);
    let ends = wire.now + Duration::from_secs(60);
    // The begin of a record of 512 octets, a second each.
    for octet in b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        wire.now += Duration::from_secs(1);
        wire.session.handle_bytes(wire.now, &mut wire.door, &[*octet]);
        assert_eq!(wire.session.poll_timeout(), Some(ends));
    }
    wire.session.handle_timeout(ends);
    assert!(!wire.session.take_replies(&mut Vec::new()));
    wire.run();
    assert!(wire.is_closed && wire.heard.is_empty());
}

#[test]
fn daemon_that_stops_in_a_handshake_says_nothing() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = offered(&tls, &client(None, false), 7);
    wire.session.handle_shutdown(wire.now);
    assert!(!wire.session.take_replies(&mut Vec::new()));
    wire.run();
    assert!(wire.is_closed);
}

#[test]
fn octets_left_inside_are_read_when_the_session_can_go_on() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Implicit);
    settings.policy.limits.stores_in_flight_max = 1;
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    let mail = "MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nBDAT 2 LAST\r\nhi";
    wire.say(&format!("HELO a\r\n{mail}{mail}{mail}"));
    for stored in 1..=3 {
        assert_eq!(wire.stored.len(), stored);
        assert!(!wire.session.wants_turn());
        wire.store();
        assert_eq!(wire.session.wants_turn(), stored < 3);
        wire.run();
    }
    assert_eq!(wire.heard.matches("queued as").count(), 3);
}

#[test]
fn client_that_says_goodbye_still_has_its_mail_stored() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = implicit(&tls, &client(None, false));
    wire.say("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nBDAT 2 LAST\r\nhi");
    wire.tls.send_close_notify();
    wire.run();
    assert!(!wire.is_closed && wire.stored.len() == 1);
    wire.store();
    wire.run();
    assert!(wire.is_closed && wire.was_said_goodbye);
    assert!(wire.heard.ends_with("queued as 0000000000000001\r\n"), "{}", wire.heard);
}

#[test]
fn idle_client_that_says_goodbye_is_closed() {
    let tls = server(vec![identity("mx.example.org")], None);
    for piece_len in PIECES {
        let mut wire = implicit(&tls, &client(None, false));
        wire.piece_len = piece_len;
        wire.say("NOOP\r\n");
        wire.tls.send_close_notify();
        wire.run();
        assert!(wire.is_closed && wire.was_said_goodbye && wire.heard.is_empty());
    }
}

#[test]
fn broken_record_ends_the_session() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut wire = implicit(&tls, &client(None, false));
    wire.session.handle_bytes(wire.now, &mut wire.door, b"\x17\x03\x03\0\x14aaaaaaaaaaaaaaaaaaaa");
    wire.run();
    assert!(wire.is_closed && wire.error.is_some());
}

#[test]
fn early_talker_is_heard_through_tls() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Implicit);
    settings.policy.greeting_delay_secs = 5;
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    assert_eq!(wire.say(""), "");
    assert_eq!(wire.say("EHLO a\r\n"), "554 5.5.1 You spoke before the greeting\r\n");
    assert!(wire.is_closed);
}

#[test]
fn login_is_offered_inside_alone() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Require);
    (settings.policy.mechanisms, settings.policy.needs_login) = (Mechanism::ALL.to_vec(), true);
    settings.rights.may_relay = false;
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    wire.plainly("");
    assert!(!wire.plainly("EHLO a\r\n").contains("AUTH"));
    assert_eq!(wire.plainly("MAIL FROM:<>\r\n"), "530 5.7.0 STARTTLS first\r\n");
    wire.plainly("STARTTLS\r\n");
    assert!(wire.say("EHLO a\r\n").contains("250-AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN\r\n"));
    assert_eq!(wire.say("MAIL FROM:<>\r\n"), "530 5.7.0 AUTH first\r\n");
    assert_eq!(wire.say("AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"), "235 2.7.0 You are logged in\r\n");
    wire.say("MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<b@local.example>\r\nBDAT 2 LAST\r\nhi");
    assert_eq!(wire.stored[0].with, "UTF8SMTPSA");
    assert_eq!(wire.stored[0].client.login.as_deref(), Some("ann"));
}

#[test]
fn turned_connection_stays_encrypted() {
    let tls = server(vec![identity("mx.example.org")], None);
    let mut settings = settings(&tls, TlsUse::Implicit);
    (settings.policy.mechanisms, settings.policy.turn_use) = (vec![Mechanism::Plain], TurnUse::Offer);
    let mut wire = Wire::new(settings, &client(None, false), "mx.example.org");
    wire.say("EHLO a\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n");
    assert_eq!(wire.say("ATRN\r\n"), "250 2.0.0 OK now reversing the connection\r\n");
    assert!(wire.is_handed_over && !wire.was_said_goodbye);
    let replaced = std::mem::replace(&mut wire.session, implicit(&tls, &client(None, false)).session);
    let mut tunnel = replaced.into_tunnel().unwrap();
    let (mut there, mut back) = (Vec::new(), Vec::new());
    std::io::Write::write_all(&mut wire.tls.writer(), b"220 client.example ready\r\n").unwrap();
    wire.tls.write_tls(&mut there).unwrap();
    tunnel.open(&mut &there[..]).unwrap();
    assert_eq!(tunnel.plain(), b"220 client.example ready\r\n");
    tunnel.seal(b"EHLO mx.example.org\r\n", &mut back);
    wire.hear(&back);
    assert_eq!(wire.heard, "EHLO mx.example.org\r\n");
}
