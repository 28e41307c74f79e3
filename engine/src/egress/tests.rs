use super::*;
use crate::config::Secret;
use proptest::prelude::*;

const PEER: &str = "192.0.2.7:25";
const PEER6: &str = "[2001:db8::7]:2525";

fn socks5(with_login: bool) -> Egress {
    let password = Secret(b"secret"[..].into());
    let login = with_login.then(|| Login { user: "ann".to_owned(), password });
    Egress::Socks5 { server: "127.0.0.1:1080".parse().unwrap(), login }
}

fn preface(egress: &Egress, peer: &str) -> Preface {
    Preface::new(egress, None, peer.parse().unwrap()).unwrap()
}

/// A dialog: what we say first, then each of the server's lines, an octet at a time, and what we say to it.
fn dialog(with_login: bool, peer: &str, first: &[u8], lines: &[(&[u8], &[u8])]) -> Preface {
    let mut preface = preface(&socks5(with_login), peer);
    assert_eq!(preface.take_bytes(), first);
    for (heard, said) in lines {
        for octet in *heard {
            assert_eq!(preface.take_bytes(), b"", "nothing is said before the reply is whole");
            preface.handle_bytes(&[*octet]).unwrap();
        }
        assert_eq!(preface.take_bytes(), *said);
    }
    preface
}

fn failure(with_login: bool, heard: &[u8]) -> PrefaceError {
    let mut preface = preface(&socks5(with_login), PEER);
    let error = preface.handle_bytes(heard).unwrap_err();
    assert_eq!(preface.handle_bytes(b"\x05\0"), Err(error), "an error stays one");
    let by_octet = run(&socks5(with_login), heard, 1).0;
    assert_eq!(by_octet, Err(error));
    error
}

#[test]
fn connects_without_login() {
    let ask: &[u8] = b"\x05\x01\0\x01\xc0\0\x02\x07\0\x19";
    let preface =
        dialog(false, PEER, b"\x05\x01\0", &[(b"\x05\0", ask), (b"\x05\0\0\x01\x0a\0\0\x01\x30\x39", b"")]);
    assert!(preface.is_done());
}

#[test]
fn logs_in_where_the_server_wants_it() {
    let ask: &[u8] = b"\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x09\xdd";
    let bound = [&b"\x05\0\0\x04"[..], &[0xfd; 16], b"\0\x01"].concat();
    let lines: &[(&[u8], &[u8])] =
        &[(b"\x05\x02", b"\x01\x03ann\x06secret"), (b"\x01\0", ask), (&bound, b"")];
    assert!(dialog(true, PEER6, b"\x05\x02\0\x02", lines).is_done());
    let anyway: &[(&[u8], &[u8])] = &[(b"\x05\0", ask), (b"\x05\0\0\x03\x01a\0\x01", b"")];
    assert!(dialog(true, PEER6, b"\x05\x02\0\x02", anyway).is_done());
}

#[test]
fn octets_behind_the_reply_are_the_sessions() {
    let mut preface = preface(&socks5(false), PEER);
    assert_eq!(preface.handle_bytes(b"\x05\0"), Ok(Progress::More));
    let reply = b"\x05\0\0\x03\x04host\0\x19220 mx.example.net\r\n";
    assert_eq!(preface.handle_bytes(reply), Ok(Progress::Done { used: 11 }));
    assert_eq!(preface.handle_bytes(b"220"), Ok(Progress::Done { used: 0 }));
}

#[test]
fn every_refusal_has_its_sentence() {
    assert_eq!(failure(true, b"\x05\xff"), PrefaceError::NoMethod);
    assert_eq!(failure(true, b"\x05\x02\x01\x01"), PrefaceError::LoginRefused);
    let mut sentences = std::collections::BTreeSet::new();
    for code in 1..=9 {
        let error = failure(false, &[5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error, PrefaceError::Refused(code));
        assert_eq!(error.is_about_peer(), (3..=6).contains(&code));
        assert!(sentences.insert(error.to_string()), "{error}");
    }
    assert!(sentences.contains("the SOCKS5 server says that the host refused the connection"));
    assert_eq!(failure(false, &[5, 0, 5, 2]), PrefaceError::Refused(2), "the rest is not waited for");
}

#[test]
fn garbage_is_told_from_a_refusal() {
    for heard in [
        &b"\x04\0"[..],
        b"22",
        b"\x05\x01",
        b"\x05\x02",
        b"\x05\0\x04\0",
        b"\x05\0\x05\0\0\x02",
        b"\x05\0HTTP/1.1 400",
    ] {
        assert_eq!(failure(false, heard), PrefaceError::Garbage, "{heard:?}");
    }
    assert_eq!(failure(true, b"\x05\x02\x05\0"), PrefaceError::Garbage, "RFC 1929 has a version of its own");
}

#[test]
fn proxy_header_names_both_ends() {
    let egress = Egress::Proxy { server: "127.0.0.1:99".parse().unwrap() };
    let header = |bind: Option<&str>, peer: &str| {
        let bind = bind.map(|ip| ip.parse().unwrap());
        let mut preface = Preface::new(&egress, bind, peer.parse().unwrap()).unwrap();
        assert!(preface.is_done());
        let header = preface.take_bytes();
        assert_eq!(preface.take_bytes(), b"");
        assert_eq!(preface.handle_bytes(b"220 hi"), Ok(Progress::Done { used: 0 }));
        header
    };
    let v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x07\0\0\0\x19";
    assert_eq!(header(Some("192.0.2.1"), PEER), v4);
    let v6 = header(Some("2001:db8::1"), PEER6);
    assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &b"\x21\x21\0\x24"[..]));
    assert_eq!(&v6[48..], b"\0\0\x09\xdd");
    assert_eq!(header(None, PEER)[16..20], [0; 4], "no address of ours in that family");
    assert_eq!(header(Some("192.0.2.1"), PEER6)[16..32], [0; 16]);
}

#[test]
fn direct_connections_have_no_preface() {
    let peer: SocketAddr = PEER.parse().unwrap();
    assert!(Preface::new(&Egress::Direct, None, peer).is_none());
    assert_eq!(Egress::Direct.server_for(peer), peer);
    assert_eq!(socks5(false).server_for(peer).port(), 1080);
}

#[test]
fn debug_text_hides_the_password() {
    let mut preface = preface(&socks5(true), PEER);
    preface.handle_bytes(b"\x05\x02").unwrap();
    let text = format!("{preface:?}");
    assert!(!text.contains("secret") && !text.contains("115, 101") && text.contains("LoginReply"), "{text}");
}

proptest! {
    #[test]
    fn any_octets_in_any_pieces_come_to_the_same(bytes in proptest::collection::vec(0u8..7, 0..40)) {
        fuzz_preface(&bytes);
    }

    #[test]
    fn any_octets_behind_a_good_beginning(first in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let begin: &[u8] = if first & 1 == 1 { &[5, 2, 1, 0, 5, 0, 0] } else { &[5, 0, 5, 0, 0] };
        fuzz_preface(&[&[first], begin, &rest].concat());
    }
}
