//! The server's side of AUTH: PLAIN, LOGIN, CRAM-MD5 and XOAUTH2 (whose bearer token is the password).
//!
//! Decides nothing but whether what was said proves the one account. Pure; trusts nothing that a client says.
//! Bound: what is kept between two lines is one user name or one challenge.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use md5::Md5;

/// The only account there is.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: String,
    pub password: String,
}

/// What the next line of the client is.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Plain,
    LoginUser,
    LoginPassword {
        user: Vec<u8>,
    },
    Cram {
        challenge: String,
    },
    Xoauth2,
    /// The client takes note of the error by an empty line.
    Xoauth2Refused,
}

#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// 334 and this, in base64 already.
    Ask(Step, String),
    Accepted,
    Refused,
    Malformed,
    UnknownMechanism,
}

/// `nonce` makes the challenge of CRAM-MD5 new.
pub(crate) fn begin(account: &Account, mechanism: &[u8], initial: Option<&[u8]>, nonce: u64) -> Next {
    let step = match mechanism.to_ascii_uppercase().as_slice() {
        b"PLAIN" => Step::Plain,
        b"LOGIN" => Step::LoginUser,
        b"XOAUTH2" => Step::Xoauth2,
        b"CRAM-MD5" => return ask_cram(initial, nonce),
        _ => return Next::UnknownMechanism,
    };
    match (initial, &step) {
        (Some(b"="), _) => answer(account, step, b""), // RFC 4954 §4: an empty response
        (Some(initial), _) => answer(account, step, initial),
        (None, Step::LoginUser) => Next::Ask(step, BASE64_STANDARD.encode("Username:")),
        (None, _) => Next::Ask(step, String::new()),
    }
}

/// RFC 2195 §2: the server speaks first.
fn ask_cram(initial: Option<&[u8]>, nonce: u64) -> Next {
    if initial.is_some() {
        return Next::Malformed;
    }
    let challenge = format!("<{nonce}@loadgen.test>");
    let asked = BASE64_STANDARD.encode(&challenge);
    Next::Ask(Step::Cram { challenge }, asked)
}

/// Takes a line of the client, without its end.
pub(crate) fn answer(account: &Account, step: Step, line: &[u8]) -> Next {
    if step == Step::Xoauth2Refused {
        return Next::Refused;
    }
    let Ok(said) = BASE64_STANDARD.decode(line) else { return Next::Malformed };
    match step {
        Step::Plain => plain(account, &said),
        Step::LoginUser => Next::Ask(Step::LoginPassword { user: said }, BASE64_STANDARD.encode("Password:")),
        Step::LoginPassword { user } => verdict(is_account(account, &user, &said)),
        Step::Cram { challenge } => verdict(said == cram(account, &challenge).as_bytes()),
        Step::Xoauth2 if is_bearer(account, &said) => Next::Accepted,
        Step::Xoauth2 => {
            Next::Ask(Step::Xoauth2Refused, BASE64_STANDARD.encode(r#"{"status":"401","schemes":"bearer"}"#))
        }
        Step::Xoauth2Refused => Next::Refused,
    }
}

fn verdict(is_right: bool) -> Next {
    if is_right { Next::Accepted } else { Next::Refused }
}

fn is_account(account: &Account, user: &[u8], password: &[u8]) -> bool {
    account.user.as_bytes() == user && account.password.as_bytes() == password
}

/// RFC 4616 §2: authorization identity, user and password, NUL between them.
fn plain(account: &Account, said: &[u8]) -> Next {
    let mut parts = said.split(|&byte| byte == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(user), Some(password), None) => verdict(is_account(account, user, password)),
        _ => Next::Malformed,
    }
}

/// User, a space, the HMAC of the challenge in lower-case hexadecimal.
fn cram(account: &Account, challenge: &str) -> String {
    let mut mac =
        Hmac::<Md5>::new_from_slice(account.password.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(challenge.as_bytes());
    let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {digest}", account.user)
}

fn is_bearer(account: &Account, said: &[u8]) -> bool {
    said == format!("user={}\x01auth=Bearer {}\x01\x01", account.user, account.password).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { user: "tim".into(), password: "tanstaaftanstaaf".into() }
    }

    fn b64(text: &str) -> Vec<u8> {
        BASE64_STANDARD.encode(text).into_bytes()
    }

    #[test]
    fn cram_is_that_of_rfc_2195() {
        let challenge = "<1896.697170952@postoffice.reston.mci.net>".to_owned();
        let said = b64("tim b913a602c7eda7a495b4e6e7334d3890");
        assert_eq!(answer(&account(), Step::Cram { challenge }, &said), Next::Accepted);
    }

    #[test]
    fn plain_and_login_take_the_one_account() {
        let right = b64("\0tim\0tanstaaftanstaaf");
        assert_eq!(begin(&account(), b"plain", Some(&right), 1), Next::Accepted);
        assert_eq!(begin(&account(), b"PLAIN", Some(&b64("\0tim\0no")), 1), Next::Refused);
        assert_eq!(begin(&account(), b"PLAIN", Some(b"="), 1), Next::Malformed);
        assert_eq!(begin(&account(), b"PLAIN", Some(b"*"), 1), Next::Malformed);
        assert_eq!(begin(&account(), b"PLAIN", None, 1), Next::Ask(Step::Plain, String::new()));
        let Next::Ask(step, _) = begin(&account(), b"LOGIN", None, 1) else { panic!("it asks the user") };
        let Next::Ask(step, asked) = answer(&account(), step, &b64("tim")) else { panic!("it asks on") };
        assert_eq!(asked.as_bytes(), b64("Password:"));
        assert_eq!(answer(&account(), step, &b64("tanstaaftanstaaf")), Next::Accepted);
        assert_eq!(begin(&account(), b"GSSAPI", None, 1), Next::UnknownMechanism);
    }

    #[test]
    fn a_refused_bearer_is_told_why_and_answers_with_nothing() {
        let right = b64("user=tim\x01auth=Bearer tanstaaftanstaaf\x01\x01");
        assert_eq!(begin(&account(), b"XOAUTH2", Some(&right), 1), Next::Accepted);
        let Next::Ask(step, _) = begin(&account(), b"XOAUTH2", Some(&b64("user=tim")), 1) else {
            panic!("it says why")
        };
        assert_eq!(answer(&account(), step, b""), Next::Refused);
    }
}
