//! What stops new mail before anything breaks, and lets it in again (B06): the mark on the backlog.

use tests::process::wait::PATIENCE;
use tests::process::{Setup, Sink};

#[test]
fn backlog_over_its_mark_turns_new_mail_away_until_some_has_gone() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let daemon = Setup::new()
        .relay(sink.address)
        .with("intake.backlog_max", 2)
        .with("retry.quadratic_secs", 3600)
        .start();
    daemon.client().deliver("ann@here.test", &["a@there.test", "b@there.test", "c@there.test"]);
    daemon.wait_for("queued_recipients", 3, PATIENCE);
    let mut client = daemon.client();
    let said = client.say_expecting("MAIL FROM:<ann@here.test>", "452");
    assert!(said.starts_with("452 4.3.1"), "{said}");
    let mut delete = daemon.setup.command(&["queue", "delete", "--where", "recipient=c@there.test", "--yes"]);
    tests::process::wait::succeed(&mut delete, PATIENCE);
    daemon.wait_for("queued_recipients", 2, PATIENCE);
    client.say_expecting("MAIL FROM:<ann@here.test>", "250");
    daemon.assert_healthy();
}
