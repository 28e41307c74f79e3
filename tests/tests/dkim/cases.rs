//! Messages that are easily signed wrong.

use crate::verifiers::Verifier;

/// What a client submits, and who cannot verify it for reasons of his own. All of them were seen with other signers'
/// signatures too.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) content: Vec<u8>,
    pub(crate) not_by: &'static [Verifier],
}

const HEADER: &str = "From: Ann <ann@here.test>\r\nTo: bob@there.test\r\nSubject: as it was\r\n\
                      Date: Sun, 22 Nov 2026 23:50:57 +0000\r\nMessage-ID: <1@here.test>\r\n";

fn case(name: &'static str, content: impl Into<Vec<u8>>) -> Case {
    Case { name, content: content.into(), not_by: &[] }
}

fn body(name: &'static str, body: &str) -> Case {
    case(name, format!("{HEADER}\r\n{body}"))
}

fn header(name: &'static str, fields: &str) -> Case {
    case(name, format!("{fields}\r\nHello\r\n"))
}

/// mail-auth 0.13.3 digests a relaxed body wrong if its last line is nothing but white space (its issue 62).
const ISSUE_62: &[Verifier] = &[Verifier::MailAuth];

/// mail-auth leaves a lone CR out, and so does OpenDKIM when it reads from a file.
const LONE_CR: &[Verifier] = &[Verifier::MailAuth, Verifier::OpenDkim];

/// dkimpy takes white space away before a line end alone, and this has none; over DATA it gets one.
const OPEN_END: &[Verifier] = &[Verifier::DkimPy];

pub(crate) fn all() -> Vec<Case> {
    [bodies(), headers()].into_iter().flatten().collect()
}

fn bodies() -> Vec<Case> {
    let long = format!("{}\r\n", "x".repeat(990));
    vec![
        body("plain", "Hello\r\n"),
        body("an empty body", ""),
        case("no body and no empty line", HEADER),
        body("a body of one empty line", "\r\n"),
        body("a body of empty lines", "\r\n\r\n\r\n"),
        Case { not_by: ISSUE_62, ..body("a body of white space", " \r\n\t\t \r\n\r\n \t\r\n") },
        body(
            "white space at line ends, before and between words",
            "  Hello \t there \t\r\n\r\n \r\n\tBye  \r\n",
        ),
        body("empty lines at the end", "Hello\r\n\r\n\r\n"),
        Case { not_by: ISSUE_62, ..body("lines of white space at the end", "Hello\r\n \r\n\t\r\n  \r\n") },
        body("no final line end", "Hello"),
        Case { not_by: OPEN_END, ..body("no final line end behind white space", "Hello\r\n there \t") },
        body("eight bits", "Grüße aus 東京 \u{a0} \u{2028}\r\n"),
        case("octets of no character set", [HEADER.as_bytes(), b"\r\n\xff\xfe \x80\t\x01\x7f\r\n"].concat()),
        body("lines that begin with dots", ".\r\n..\r\n...\r\n.a\r\n"),
        body("long lines", &long.repeat(3)),
        body("a lone LF", "Hello\nthere \n\nBye\r\n"),
        body("lone LFs at the end", "Hello\n\n\n"),
        Case { not_by: LONE_CR, ..body("a lone CR", "Hel\rlo\r\nthere\r\r\n") },
        body("a body of a megabyte", &"twelve  words of it \t\r\n\r\n".repeat(44_000)),
    ]
}

fn headers() -> Vec<Case> {
    let folded = format!("Subject:{}\r\n", "\r\n a rather long subject \t that goes on".repeat(40));
    let references = format!("References: {}<last@here.test>\r\n", "<1234567890@here.test>\r\n\t".repeat(60));
    let many = "X-Other: not signed\r\n".repeat(200);
    vec![
        header("a field folded over many lines", &format!("{HEADER}{references}").replace("Subject: as it was\r\n", &folded)),
        header("fields that are there twice", &format!("{HEADER}Subject: another\r\nTo: cy@there.test\r\nsubject: third\r\n")),
        header("two authors' fields", &format!("{HEADER}From: eve@elsewhere.test\r\n")),
        header(
            "an author with comments",
            "From: (x@there.test) \"Doe,\\r\\n Ann (not\" (really (nested) \\) ) <ann (me) @here.test> (bye)\r\nTo: b@there.test\r\n"
                .replace("\\r\\n", "\r\n").as_str(),
        ),
        header("several authors", "From: Ann <ann@here.test>,\r\n\tBob <bob@there.test>\r\nSender: ann@here.test\r\n"),
        header("names in any letters, white space in any place",
            "FROM:\tann@here.test\r\nTo:bob@there.test\r\nsUBJECT:  x \t y  \r\n"),
        header("empty fields", "From: ann@here.test\r\nTo:\r\nSubject: \r\nCc: \t\r\n \t\r\nReply-To:\r\n\tann@here.test\r\n"),
        header("all that is signed and much that is not", &format!("{HEADER}{ALL}{many}")),
        header("eight bits in fields", "From: Jörg <jörg@here.test>\r\nTo: δοκιμή@παράδειγμα.test\r\nSubject: Grüße, 世界\r\n"),
        header("lines that end in LF", &HEADER.replace("\r\n", "\n").replace("as it", "as\n it")),
        header("another domain's signature", &format!("DKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.test; s=x;\r\n\th=from; bh=AAAA; b=AAAA\r\n{HEADER}")),
    ]
}

const ALL: &str = "Sender: ann@here.test\r\nReply-To: ann@here.test\r\nCc: cy@there.test\r\n\
                   In-Reply-To: <0@here.test>\r\nReferences: <0@here.test>\r\nMIME-Version: 1.0\r\n\
                   Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\
                   List-Id: <list.here.test>\r\nList-Unsubscribe: <https://here.test/u/1>\r\n\
                   List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFeedback-ID: a:b:c:d\r\n";
