//! The audit on files written by hand.

use std::fs;

use super::verp::Delimiters;
use super::*;

const HEADER: &str = "loadgen-sent\t1\tab\t10\td{:03}.test\n";

fn audit(sent: &str, received: &str, verp: Option<VerpCheck>) -> Result<AuditReport, AuditError> {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["sent", "received"].map(|name| folder.path().join(name));
    fs::write(&paths[0], format!("{HEADER}{sent}")).unwrap();
    fs::write(&paths[1], received).unwrap();
    let [sent, received] = paths;
    run(&AuditConfig { sent: vec![sent], received: vec![received], verp })
}

fn delivery(time: u64, digest: u64, token: &str, recipient: u64) -> String {
    format!("{time}\t{digest:016x}\t{token}\ta@b\tu{recipient:06}@d{:03}.test\n", recipient % 10 + 1)
}

#[test]
fn every_kind_of_defect_is_counted_once() {
    let sent = "A\t1000\t99\t0\t3\t00000000000000aa\tab-0\t2-2\nR\t1000\t99\t3\t3\t00000000000000bb\tab-1\t-\n\
                U\t1000\t99\t6\t3\t00000000000000cc\tab-2\t-\n";
    let received = [
        delivery(3000, 0xaa, "ab-0", 0), // as it should be
        delivery(4000, 0xaa, "ab-0", 0), // duplicated
        delivery(5000, 0xaa, "ab-0", 2), // refused at RCPT
        delivery(5000, 0xbb, "ab-1", 3), // refused at the end
        delivery(5000, 0xcd, "ab-2", 6), // unknown, and altered
        delivery(5000, 0xaa, "zz-0", 1), // another run
        delivery(5000, 0xaa, "ab-0", 9), // never sent
    ];
    let report = audit(sent, &received.concat(), None).unwrap();
    assert_eq!((report.expected, report.received, report.lost), (2, 7, 1));
    assert_eq!((report.duplicated, report.altered, report.unexpected), (1, 1, 4));
    assert_eq!((report.unknown_delivered, report.wrong_sender), (1, 0));
    assert_eq!((report.first_arrival_ns, report.last_arrival_ns), (Some(3000), Some(5000)));
    assert_eq!((report.latency.count, report.latency.max_us), (1, 2.0));
    assert!(!report.is_clean());
}

#[test]
fn a_delivery_without_its_token_or_with_anothers_is_altered() {
    let sent = "A\t1\t9\t0\t1\t00000000000000aa\tab-0\t-\nA\t1\t9\t1\t1\t00000000000000aa\tab-1\t-\n";
    let received = delivery(2, 0xaa, "-", 0) + &delivery(2, 0xaa, "ab-0", 1);
    let report = audit(sent, &received, None).unwrap();
    assert_eq!((report.lost, report.altered), (0, 2));
}

#[test]
fn senders_are_checked_where_asked() {
    let sent = "A\t1\t9\t0\t1\t00000000000000aa\tab-0\t-\n";
    let check = VerpCheck::new("list-", Delimiters::default());
    let report = audit(sent, &delivery(2, 0xaa, "ab-0", 0), Some(check)).unwrap();
    assert_eq!((report.wrong_sender, report.is_clean()), (1, false));
}

#[test]
fn damaged_files_name_their_line() {
    assert!(matches!(audit("A\tx\n", "", None), Err(AuditError::Syntax { line: 2, .. })));
    assert!(matches!(audit("", "1\t2\n", None), Err(AuditError::Syntax { line: 1, .. })));
    let twice = "A\t1\t9\t0\t1\t00000000000000aa\tab-0\t-\n".repeat(2);
    assert!(matches!(audit(&twice, "", None), Err(AuditError::Twice { line: 3, message: 0, .. })));
    let huge = "A\t1\t9\t0\t18446744073709551615\t00000000000000aa\tab-0\t-\n";
    assert!(matches!(audit(huge, "", None), Err(AuditError::Syntax { line: 2, .. })));
}
