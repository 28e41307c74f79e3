//! SCRAM-SHA-256 from end to end (RFC 5802, RFC 7677): a password file of our own making, and two clients that are not ours.

use super::{said, smtplib, with_certificate, with_users};
use std::process::{Output, Stdio};
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, Setup, Sink, peer};

/// A daemon at which `ann` logs in with `open sesame`, which nothing but SCRAM's keys are kept of.
fn daemon(sink: &Sink) -> Daemon {
    let setup = with_users(with_certificate(sink), "offer", &keys_of(&Setup::new()));
    setup.start()
}

/// What `ringpost passwd` makes of the password.
fn keys_of(folder: &Setup) -> String {
    let (file, password) = (folder.folder().join("made"), folder.folder().join("password"));
    std::fs::write(&password, "open sesame\n").expect("the folder is ours");
    let mut command = std::process::Command::new(tests::process::programs::ringpost());
    command.args(["passwd", "--scheme", "scram-sha-256", "--file"]).arg(&file).arg("ann");
    let input = Stdio::from(std::fs::File::open(&password).expect("it is ours"));
    let made = wait::finish_with(&mut command, input, PATIENCE);
    assert!(made.status.success(), "{}", said(&made));
    std::fs::read_to_string(&file).expect("it was made")
}

/// The client's side in full, by Python's hashlib and hmac: it holds what the server says against its own password too.
const SCRAM: &str = r#"
import base64, hashlib, hmac
b64 = lambda octets: base64.b64encode(octets).decode()
mac = lambda key, text: hmac.new(key, text.encode(), 'sha256').digest()
class Scram:
    def __init__(self, user, password):
        self.password, self.nonce, self.is_known = password, b64(hashlib.sha256(user.encode()).digest()), False
        self.bare = f'n={user},r={self.nonce}'
    def __call__(self, challenge=None):
        if challenge is None:
            return 'n,,' + self.bare
        said = dict(part.split('=', 1) for part in challenge.decode().split(','))
        if 'v' in said:
            self.is_known = base64.b64decode(said['v']) == self.signature
            return ''
        assert said['r'].startswith(self.nonce) and len(said['r']) > len(self.nonce) + 16 and int(said['i']) >= 4096
        salted = hashlib.pbkdf2_hmac('sha256', self.password.encode(), base64.b64decode(said['s']), int(said['i']))
        key = mac(salted, 'Client Key')
        last = 'c=biws,r=' + said['r']
        whole = ','.join([self.bare, challenge.decode(), last])
        self.signature = mac(mac(salted, 'Server Key'), whole)
        stored = hashlib.sha256(key).digest()
        return last + ',p=' + b64(bytes(a ^ b for a, b in zip(key, mac(stored, whole))))
"#;

#[test]
fn client_and_server_prove_to_one_another_by_scram_that_they_know_the_password() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    let dialog = "with smtplib.SMTP(host, port) as s:\n s.starttls(context=context)\n s.ehlo()\n \
                  ann = Scram('ann', 'open sesame')\n print(s.auth('SCRAM-SHA-256', ann)[0], ann.is_known)\n \
                  s.sendmail('ann@here.test', ['bob@there.test'], 'Subject: x\\n\\nhello')\n";
    let Some(output) = smtplib(&[SCRAM, dialog].concat(), daemon.listening[1]) else { return };
    assert!(output.status.success() && said(&output).contains("235 True"), "{}", said(&output));
    daemon.wait_for("delivered", 1, PATIENCE);
    assert_eq!(daemon.metric("logins"), 1);
    sink.end();
}

#[test]
fn wrong_password_and_unknown_user_fail_at_the_same_step_of_scram() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    let dialog = "for user in ['ann', 'eve']:\n with smtplib.SMTP(host, port) as s:\n  s.starttls(context=context)\n  \
                  s.ehlo()\n  who = Scram(user, 'open door')\n  try:\n   s.auth('SCRAM-SHA-256', who)\n   print('in')\n  \
                  except smtplib.SMTPAuthenticationError as error:\n   \
                  print('refused', error.smtp_code, hasattr(who, 'signature'), s.mail('ann@here.test')[0])\n";
    let Some(output) = smtplib(&[SCRAM, dialog].concat(), daemon.listening[1]) else { return };
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["refused 535 True 530"; 2], "{said}");
    assert_eq!((daemon.metric("logins"), daemon.metric("logins_wrong")), (0, 2));
}

/// GNU SASL's own client, under STARTTLS.
fn gsasl(daemon: &Daemon, password: &str) -> Option<Output> {
    let mut client = peer("gsasl")?;
    client.args([
        "--smtp",
        "--starttls",
        "--x509-ca-file=",
        "--no-cb",
        "--mechanism=SCRAM-SHA-256",
        "--quiet",
    ]);
    client.args(["--authentication-id=ann", "--authorization-id=", &format!("--password={password}")]);
    client.arg(format!("--connect={}", daemon.listening[1]));
    Some(wait::finish(&mut client, PATIENCE))
}

#[test]
fn gnu_sasl_logs_in_by_scram_and_only_with_the_right_password() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    let Some(right) = gsasl(&daemon, "open sesame") else { return };
    assert!(right.status.success(), "{}", said(&right));
    let wrong = gsasl(&daemon, "open door").expect("it was there");
    assert!(!wrong.status.success(), "{}", said(&wrong));
    assert_eq!((daemon.metric("logins"), daemon.metric("logins_wrong")), (1, 1));
}
