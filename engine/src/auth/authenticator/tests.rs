use super::*;
use crate::auth::hash::Hash;
use crate::auth::{Scheme, hash};
use crossbeam::channel::bounded;
use smtp_in::door::ScramKeys;

const SECRET: [u8; 32] = [9; 32];

fn of(keys: &str, lines: &str) -> Authenticator {
    let config: Auth = toml::from_str(keys).unwrap();
    config.check().unwrap();
    let passwords = Passwords::parse(lines, "passwords").unwrap();
    Authenticator::new(&config, Arc::new(passwords), &SECRET).unwrap()
}

fn outcome(of: &Authenticator, address: &str, attempt: Attempt) -> Outcome {
    let (says, hears) = bounded(1);
    of.check(Some(address.parse().unwrap()), attempt, move |outcome| says.send(outcome).unwrap());
    hears.recv().unwrap()
}

fn plain(user: &str, password: &str) -> Attempt {
    Attempt::Password { user: user.to_owned(), password: Secret::new(password.into()) }
}

fn line(user: &str, scheme: Scheme, password: &str) -> String {
    format!("{user}:{}\n", Hash::make(scheme, password.as_bytes()).unwrap())
}

#[test]
fn passwords_of_the_file_are_right_and_others_are_not() {
    let auth = of("", &(line("ann", Scheme::Argon2id, "secret") + &line("bob", Scheme::Plain, "other")));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), accepted("ann"));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("bob", "other")), accepted("bob"));
    for (user, password) in
        [("ann", "other"), ("bob", "secret"), ("eve", "secret"), ("ann", ""), ("", "secret")]
    {
        assert_eq!(outcome(&auth, "192.0.2.1", plain(user, password)), Outcome::Wrong, "{user}");
    }
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret\0")), Outcome::Wrong);
}

/// RFC 2195 §2.
#[test]
fn cram_md5_is_rfc_2195s() {
    let auth = of("", &line("tim", Scheme::Plain, "tanstaaftanstaaf"));
    let cram = |user: &str, digest: u128| Attempt::CramMd5 {
        user: user.to_owned(),
        challenge: "<1896.697170952@postoffice.reston.mci.net>".to_owned(),
        digest: digest.to_be_bytes(),
    };
    let right = 0xb913_a602_c7ed_a7a4_95b4_e6e7_334d_3890;
    assert_eq!(outcome(&auth, "192.0.2.1", cram("tim", right)), accepted("tim"));
    assert_eq!(outcome(&auth, "192.0.2.1", cram("tim", right + 1)), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", cram("tom", right)), Outcome::Wrong);
    let hashed = of("", &line("tim", Scheme::ScramSha256, "tanstaaftanstaaf"));
    assert_eq!(outcome(&hashed, "192.0.2.1", cram("tim", right)), Outcome::Wrong, "nothing to make it from");
}

/// RFC 1939 §7.
#[test]
fn apop_is_rfc_1939s() {
    let auth = of("", "");
    let secrets = Arc::new(Passwords::parse(&line("mrose", Scheme::Plain, "tanstaaf"), "secrets").unwrap());
    let apop = |user: &str, digest: u128| Attempt::Apop {
        user: user.to_owned(),
        stamp: "<1896.697170952@dbc.mtview.ca.us>".to_owned(),
        digest: digest.to_be_bytes(),
        of: Arc::clone(&secrets),
    };
    let right = 0xc4c9_334b_ac56_0ecc_979e_5800_1b3e_22fb;
    assert_eq!(outcome(&auth, "192.0.2.1", apop("mrose", right)), accepted("mrose"));
    assert_eq!(outcome(&auth, "192.0.2.1", apop("mrose", right + 1)), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", apop("eve", right)), Outcome::Wrong);
}

fn keys(of: &Authenticator, user: &str) -> ScramKeys {
    let attempt = Attempt::ScramKeys { user: user.to_owned() };
    match outcome(of, "192.0.2.1", attempt) {
        Outcome::Scram(keys) => keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn scram_keys_are_the_files_or_made_up_alike() {
    let lines = line("ann", Scheme::ScramSha256, "secret") + &line("bob", Scheme::Argon2id, "secret");
    let auth = of("", &lines);
    assert!(scram::matches(&keys(&auth, "ann"), b"secret"));
    for user in ["bob", "eve"] {
        let made_up = keys(&auth, user);
        assert_eq!(made_up, keys(&of("", &lines), user), "by another process as well");
        assert_eq!((made_up.iterations, made_up.salt.len()), (scram::ITERATIONS, scram::SALT_LEN));
        let prove = Attempt::Prove { user: user.to_owned() };
        assert_eq!(outcome(&auth, "192.0.2.1", prove), Outcome::Wrong);
    }
    let prove = Attempt::Prove { user: "ann".to_owned() };
    assert_eq!(outcome(&auth, "192.0.2.1", prove), accepted("ann"));
}

#[test]
fn guesses_are_counted_over_all_mechanisms_and_right_ones_are_not() {
    let lines = line("ann", Scheme::Plain, "secret") + &line("ann", Scheme::ScramSha256, "secret");
    let auth = of("wrong_per_address = \"4/h\"\nremember_secs = 0", &lines);
    for _ in 0..20 {
        let _ = keys(&auth, "ann");
        let prove = Attempt::Prove { user: "ann".to_owned() };
        assert_eq!(outcome(&auth, "192.0.2.1", prove), accepted("ann"));
        assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), accepted("ann"));
    }
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "a")), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", plain("eve", "a")), Outcome::Wrong);
    let _ = keys(&auth, "ann");
    let cram = Attempt::CramMd5 { user: "ann".to_owned(), challenge: "c".to_owned(), digest: [0; 16] };
    assert_eq!(outcome(&auth, "192.0.2.1", cram), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), Outcome::Unavailable);
    assert_eq!(outcome(&auth, "192.0.2.2", plain("ann", "secret")), accepted("ann"), "from elsewhere");
}

#[test]
fn a_right_password_is_remembered_until_a_reload() {
    let auth = of("", &line("ann", Scheme::Argon2id, "secret"));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), accepted("ann"));
    assert!(auth.0.recent.holds(clock::now(), "ann", b"secret"));
    let passwords = Passwords::parse(&line("ann", Scheme::Argon2id, "newer"), "passwords").unwrap();
    auth.configure(&Auth::default(), Arc::new(passwords));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "newer")), accepted("ann"));
}

#[test]
fn a_program_is_asked_about_users_that_the_file_does_not_have() {
    let script = r#"read -r line <&3; case $line in system*) exit 0 ;; busy*) exit 111 ;; *) exit 1 ;; esac"#;
    let keys = format!("checkpassword = [\"/bin/sh\", \"-c\", '''{script}''', \"c\"]");
    let auth = of(&keys, &line("ann", Scheme::Plain, "secret"));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("system", "x")), accepted("system"));
    assert_eq!(outcome(&auth, "192.0.2.1", plain("busy", "x")), Outcome::Unavailable);
    assert_eq!(outcome(&auth, "192.0.2.1", plain("eve", "x")), Outcome::Wrong);
    assert_eq!(outcome(&auth, "192.0.2.1", plain("ann", "secret")), accepted("ann"));
}

#[test]
fn past_the_bound_nobody_waits_and_nothing_is_counted() {
    let auth = of("threads = 1\nwrong_per_address = \"1000/h\"", &line("ann", Scheme::Argon2id, "secret"));
    let (says, hears) = bounded(1024);
    let tried = 4 * WAITING_MAX;
    for _ in 0..tried {
        let says = says.clone();
        auth.check(None, plain("ann", "wrong"), move |outcome| says.send(outcome).unwrap());
    }
    let outcomes: Vec<Outcome> = hears.iter().take(tried).collect();
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!(count(Outcome::Wrong) + count(Outcome::Unavailable), tried);
    assert!(count(Outcome::Unavailable) > 0 && count(Outcome::Wrong) >= WAITING_MAX);
}

#[test]
fn comparing_does_not_need_equal_lengths() {
    assert!(hash::is_same(b"", b"") && !hash::is_same(b"a", b"") && !hash::is_same(b"a", b"ab"));
}
