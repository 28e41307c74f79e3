use super::sealed::secured;
use super::*;
use proptest::prelude::*;

const PHRASES: &[&[u8]] = &[
    b"EHLO a\r\n",
    b"HELO b\r\n",
    b"MAIL FROM:<a@b.c>\r\n",
    b"MAIL FROM:<>",
    b" SMTPUTF8",
    b" XVERP",
    b" SIZE=101",
    b" BODY=BINARYMIME",
    b"RCPT TO:<x@y.z>\r\n",
    b"RCPT TO:<postmaster>\r\n",
    b"RCPT TO:<\xc3\xa9@y.z>",
    b"DATA\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 9\r\n",
    b"BDAT 12 LAST\r\n",
    b"BDAT 99\r\n",
    b"BDAT x\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"VRFY x\r\n",
    b"HELP\r\n",
    b"EXPN x\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"\n.\n",
    b"\r\n.\n",
    b"\r",
    b"\n",
    b".",
    b"\r\n",
    b"Received: x\r\n",
    b"\0",
    b"STARTTLS\r\n",
    b"AUTH PLAIN AGEAYg==\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH CRAM-MD5\r\n",
    b"AUTH SCRAM-SHA-256 biwsbj1hLHI9eA==\r\n",
    b"YQ==\r\n",
    b"Yg==\r\n",
    b"*\r\n",
    b"XCLIENT ADDR=192.0.2.1 NAME=a.b\r\n",
    b"XCLIENT LOGIN=ann\r\n",
    b"ATRN\r\n",
    b"ETRN a.b\r\n",
    b"MAIL FROM:<!a@b.c>\r\n",
    b"RCPT TO:<!x@y.z>\r\n",
    b"RCPT TO:<?x@y.z>\r\n",
    b"RCPT TO:</x@y.z>\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"body text that has some length\r\n",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nBDAT 3 LAST\r\nabc",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\nS: x\r\n\r\nabc\r\n.\r\n",
];

const ATTRIBUTES: &[&[u8]] = &[
    b"NAME=a.b",
    b"ADDR=192.0.2.1",
    b"ADDR=IPV6:::1",
    b"ADDR=[UNAVAILABLE]",
    b"PORT=25",
    b"HELO=a+2Bb",
    b"PROTO=ESMTP",
    b"LOGIN=ann",
    b"LOGIN=[TEMPUNAVAIL]",
    b"NAME=+0",
    b"=",
];

proptest! {
    #[test]
    fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_session(Instant::now(), &bytes);
        fuzz_auth(Instant::now(), &bytes);
        fuzz_xclient(Instant::now(), &bytes);
        fuzz_proxied(Instant::now(), &bytes);
        fuzz_handshake(Instant::now(), &bytes);
        fuzz_transaction(Instant::now(), &bytes);
        fuzz_greeting(Instant::now(), &bytes);
    }

    #[test]
    fn cuts_change_nothing_in_what_looks_like_mail(
        phrases in proptest::collection::vec(proptest::sample::select(PHRASES), 0..40),
    ) {
        let said = phrases.concat();
        fuzz_session(Instant::now(), &[b"EHLO a\r\n".as_slice(), &said].concat());
        fuzz_proxied(Instant::now(), &said);
        (0..8).for_each(|step| fuzz_auth(Instant::now(), &[&[step], &said[..]].concat()));
        (0..7).for_each(|step| fuzz_transaction(Instant::now(), &[&[step], &said[..]].concat()));
        [0, 20].into_iter().for_each(|early| fuzz_greeting(Instant::now(), &[&[early], &said[..]].concat()));
    }

    #[test]
    fn cuts_change_nothing_for_a_front_server(
        words in proptest::collection::vec(proptest::sample::select(ATTRIBUTES), 0..6),
    ) {
        fuzz_xclient(Instant::now(), &[words.join(&b' '), b"\r\nEHLO b\r\nNOOP\r\n".to_vec()].concat());
    }
}

proptest! {
    // Each is a handshake or two.
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn cuts_change_nothing_inside_tls(
        how in 0..4_u8,
        phrases in proptest::collection::vec(proptest::sample::select(PHRASES), 0..40),
    ) {
        fuzz_sealed(Instant::now(), &[vec![how], b"EHLO a\r\n".to_vec(), phrases.concat()].concat());
    }
}

/// What a session was on its way, as a debugger shows it after each octet, and what it said.
fn states(mut peer: Peer, bytes: &[u8]) -> String {
    let mut seen = format!("{:?}", peer.session);
    while peer.unblock() {
        seen += &format!("{:?}", peer.session);
    }
    for octet in bytes {
        peer.session.handle_bytes(peer.now, &mut Anyone, &[*octet]);
        seen += &format!("{:?}", peer.session);
        while peer.unblock() {
            seen += &format!("{:?}", peer.session);
        }
    }
    seen + &peer.heard
}

/// For each state an entry that meets it, and with which octets. An entry's own opening is taken as it is.
#[test]
fn every_state_of_a_session_is_met_from_an_entry() {
    let now = Instant::now();
    let plain = |is_proxied| Peer::new(now, tight_policy(), is_proxied);
    let slow = Peer::new(now, slow_policy(), false);
    let transaction = |step: usize| [GREETED, TRANSACTIONS[step]].concat();
    let auth = |step: u8, rest: &[u8]| [GREETED, &login(now, step), rest].concat();
    let met = [
        (plain(false), Vec::new(), "waiting: Introduction(Greeting)"),
        (slow, Vec::new(), "waiting: Greeting"),
        (plain(true), Vec::new(), "reading: Header("),
        (plain(true), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), "address: 192.0.2.1"),
        (plain(false), GREETED.to_vec(), "helo: Some("),
        (plain(false), transaction(1), "transaction: Some("),
        (plain(false), transaction(4), "reading: Data("),
        (plain(false), transaction(5), "reading: Chunk("),
        (plain(false), transaction(6), "refusal: Some("),
        (plain(false), [&transaction(5)[..], &[b'x'; 40]].concat(), "chunks_begun: true"),
        (plain(false), auth(1, b"AGEAYg==\r\n"), "waiting: Login("),
        (plain(false), auth(2, b""), "reading: Response"),
        (plain(false), auth(5, b""), "exchange: Some("),
        // `r=x`: the keys. `v=`: the proof was right.
        (plain(false), auth(6, b""), "334 cj14"),
        (plain(false), auth(7, b""), "334 dj"),
        (plain(false), auth(7, b"\r\n"), "login: Some("),
        (plain(false), b"EHLO a\r\nSTARTTLS\r\n".to_vec(), "securing: Agreed"),
        (plain(false), b"EHLO a\r\nSTARTTLS\r\n".to_vec(), "securing: Shaking"),
        (plain(false), b"EHLO a\r\nXCLIENT NAME=a.b LOGIN=a\r\n".to_vec(), "named: Some("),
        (plain(false), auth(1, b"AGEAYg==\r\nATRN\r\n"), "waiting: Turn"),
        (plain(false), b"QUIT\r\n".to_vec(), "ending: Closing"),
    ];
    for (peer, bytes, state) in met {
        assert!(states(peer, &bytes).contains(state), "{state}: {:?}", String::from_utf8_lossy(&bytes));
    }
    let shown = |tls_use| format!("{:?}", secured(now, tls_use, 1).session);
    assert!(
        shown(TlsUse::Offer).contains("securing: Sealed")
            && shown(TlsUse::Implicit).contains("securing: Sealed")
    );
}
