//! No message is cut in two or ended early on its way in and out, and every octet of a content comes out as it went in.

use loadgen::client::Introduction;
use loadgen::smuggle::{self, Difference, SmuggleConfig, SmuggleReport};
use tests::process::wait::PATIENCE;
use tests::process::{Setup, Sink};

/// Every case through a daemon to a sink with these options; what differs from what was sent.
fn through(options: &[&str]) -> (SmuggleReport, Vec<Difference>) {
    let sink = Sink::start(options);
    let daemon = Setup::new().relay(sink.address).with("bounces.doublebounce_to", "").start();
    let report = smuggle::run(&SmuggleConfig::to(Introduction::to(daemon.address))).expect("it is served");
    daemon.wait_until_empty(PATIENCE);
    daemon.assert_healthy();
    let ended = sink.end();
    let differences = report.compare(&[&ended.audit]).expect("the sink's record");
    (report, differences)
}

#[test]
fn every_content_comes_out_as_it_went_in() {
    let (report, differences) = through(&[]);
    assert_eq!((report.split, report.unknown, report.refused), (0, 0, 0), "{report:?}");
    assert!(report.accepted > 100);
    assert_eq!(differences, []);
}

#[test]
fn host_without_chunking_gets_nothing_that_could_be_two_messages() {
    let (report, differences) = through(&["--no-chunking"]);
    assert_eq!((report.split, report.unknown), (0, 0), "{report:?}");
    let smuggled: Vec<&Difference> = differences
        .iter()
        .filter(|difference| matches!(difference, Difference::Smuggled { .. } | Difference::Uninvited { .. }))
        .collect();
    assert!(smuggled.is_empty(), "{smuggled:?}");
    assert!(differences.iter().any(|difference| matches!(difference, Difference::Missing { .. })));
}
