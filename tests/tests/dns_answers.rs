//! What the control thread asks a name server, how often, how much at a time, and what it makes of the answers.

mod asking;

use asking::{Asking, places, refusal, run};
use engine::domains::Resolution;
use std::rc::Rc;
use tests::names::{A, AAAA, MX, Names, Said, TXT};
use tests::process::setup;
use tokio::task::{JoinSet, spawn_local};

/// One resolver and a name server that says that.
fn with(
    say: impl Fn(&str, u16) -> Said + Send + 'static,
    delivery: &str,
    test: impl AsyncFnOnce(Asking, &Names),
) {
    let (names, queue) = (Names::start(say), setup::temporary_folder());
    run(async {
        let asking = Asking::new(names.address, queue.path(), delivery, "");
        test(asking, &names).await;
    });
}

/// Of domains with these MX records, and hosts with these addresses.
fn known(
    exchanges: &'static [(u16, &'static str)],
    addresses: &'static [(&'static str, [u8; 4])],
) -> impl Fn(&str, u16) -> Said + Send + 'static {
    move |name, kind| match (name, kind) {
        ("a.test", MX) => Said::exchanges(exchanges),
        ("a.test", _) => Said::NoData,
        ("trouble.test", _) => Said::ServFail,
        (_, A) => match addresses.iter().find(|(host, _)| *host == name) {
            Some((_, address)) => Said::addresses(&[*address]),
            None => Said::NoName,
        },
        _ if addresses.iter().any(|(host, _)| *host == name) => Said::NoData,
        _ => Said::NoName,
    }
}

// ---- how often, how much at a time ----

#[test]
fn ten_thousand_new_domains_are_no_burst_at_the_name_server() {
    const DOMAINS: usize = 10_000;
    let say = |name: &str, kind: u16| match kind {
        MX => Said::exchanges(&[(10, &format!("mx.{name}"))]),
        A => Said::addresses(&[[127, 0, 0, 9]]),
        _ => Said::NoData,
    };
    with(say, "questions_max = 64", async |asking, names| {
        let asking = Rc::new(asking);
        let mut domains = JoinSet::new();
        for number in 0..DOMAINS {
            let asking = Rc::clone(&asking);
            domains.spawn_local(async move { asking.mx(&format!("d{number}.test")).await });
        }
        let answers = domains.join_all().await;
        let sites = answers.iter().filter(|answer| matches!(answer, Resolution::Site { .. })).count();
        assert_eq!(sites, DOMAINS);
        assert!((2..=64).contains(&names.most_at_a_time()), "{}", names.most_at_a_time());
    });
}

#[test]
fn equal_questions_at_a_time_are_asked_once() {
    with(known(&[(10, "mx.a.test")], &[("mx.a.test", [127, 0, 0, 1])]), "", async |asking, names| {
        let asking = Rc::new(asking);
        let mut same = JoinSet::new();
        for _ in 0..400 {
            let asking = Rc::clone(&asking);
            same.spawn_local(async move { asking.mx("a.test").await });
        }
        assert_eq!(same.join_all().await.len(), 400);
        let asked = [("a.test", MX), ("_mta-sts.a.test", TXT), ("mx.a.test", A), ("mx.a.test", AAAA)];
        assert_eq!(asked.map(|(name, kind)| names.asked(name, kind)), [1; 4]);
    });
}

#[test]
fn a_denial_is_kept_as_an_answer_is() {
    with(known(&[(10, "mx.a.test")], &[("mx.a.test", [127, 0, 0, 1])]), "", async |asking, names| {
        for _ in 0..3 {
            assert_eq!(refusal(&asking.mx("nowhere.test").await), "failed 550 5.1.2");
            assert_eq!(places(&asking.mx("a.test").await), ["mx.a.test 127.0.0.1:25"]);
        }
        assert_eq!(names.asked("nowhere.test", MX), 1);
        assert_eq!((names.asked("a.test", MX), names.asked("mx.a.test", AAAA)), (1, 1));
    });
}

#[test]
fn a_domain_whose_servers_are_silent_does_not_hold_others_up() {
    let say = |name: &str, kind: u16| match (name, kind) {
        (name, _) if name.ends_with("silent.test") => Said::Silence,
        (_, A) => Said::addresses(&[[127, 0, 0, 1]]),
        _ => Said::NoData,
    };
    with(say, "questions_max = 8", async |asking, _| {
        let asking = Rc::new(asking);
        let silent = Rc::clone(&asking);
        let waits = spawn_local(async move { silent.mx("silent.test").await });
        for number in 0..50 {
            assert_eq!(places(&asking.mx(&format!("d{number}.test")).await).len(), 1);
        }
        assert!(!waits.is_finished());
        assert_eq!(refusal(&waits.await.expect("no panic")), "deferred 451 4.4.3");
    });
}

// ---- what becomes of the answers ----

#[test]
fn hosts_are_tried_by_preference() {
    const HOSTS: &[(&str, [u8; 4])] =
        &[("c.test", [127, 0, 0, 3]), ("b.test", [127, 0, 0, 2]), ("d.test", [127, 0, 0, 4])];
    with(known(&[(30, "c.test"), (10, "b.test"), (20, "d.test")], HOSTS), "", async |asking, _| {
        let expected = ["b.test 127.0.0.2:25", "d.test 127.0.0.4:25", "c.test 127.0.0.3:25"];
        let resolution = asking.mx("a.test").await;
        assert_eq!(places(&resolution), expected);
        let Resolution::Site { site, basis, .. } = resolution else { panic!("places() saw a site") };
        assert_eq!((&*site, &*basis.tag), ("b.test,c.test,d.test", ""));
    });
}

#[test]
fn hosts_without_an_address_leave_the_mail_to_the_others() {
    const MX_SET: &[(u16, &str)] = &[(10, "gone.test"), (20, "trouble.test"), (30, "mx.test")];
    with(known(MX_SET, &[("mx.test", [127, 0, 0, 1])]), "", async |asking, _| {
        assert_eq!(places(&asking.mx("a.test").await), ["mx.test 127.0.0.1:25"]);
    });
}

#[test]
fn no_address_at_all_is_hard_and_with_any_trouble_soft() {
    with(known(&[(10, "gone.test"), (10, "away.test")], &[]), "", async |asking, _| {
        assert_eq!(refusal(&asking.mx("a.test").await), "failed 550 5.4.4");
        assert_eq!(refusal(&asking.mx("trouble.test").await), "deferred 451 4.4.3");
    });
    with(known(&[(10, "gone.test"), (20, "trouble.test")], &[]), "", async |asking, _| {
        assert_eq!(refusal(&asking.mx("a.test").await), "deferred 451 4.4.3");
    });
}

#[test]
fn a_domain_of_any_script_is_asked_for_in_ascii_and_what_is_no_name_is_not_asked_for() {
    let say = |name: &str, kind: u16| match (name, kind) {
        ("xn--bcher-kva.test", MX) => Said::exchanges(&[(10, "mx.test")]),
        ("mx.test", A) => Said::addresses(&[[127, 0, 0, 1]]),
        _ => Said::NoData,
    };
    with(say, "", async |asking, _| {
        assert_eq!(places(&asking.mx("bücher.test").await), ["mx.test 127.0.0.1:25"]);
        assert_eq!(refusal(&asking.mx(&format!("{}.test", "a".repeat(64))).await), "failed 550 5.1.2");
    });
}

#[test]
fn a_null_mx_takes_no_mail() {
    with(known(&[(0, "")], &[]), "", async |asking, _| {
        assert_eq!(refusal(&asking.mx("a.test").await), "failed 556 5.1.10");
    });
}

// The listener is on 127.0.0.1:2525.

const OWN: &[(&str, [u8; 4])] = &[("other.test", [127, 0, 0, 2]), ("own.test", [127, 0, 0, 1])];

#[test]
fn own_address_in_the_set_cuts_it() {
    with(
        known(&[(10, "other.test"), (20, "own.test"), (30, "other.test")], OWN),
        "port = 2525",
        async |asking, _| {
            assert_eq!(places(&asking.mx("a.test").await), ["other.test 127.0.0.2:2525"]);
        },
    );
    with(known(&[(10, "own.test"), (20, "other.test")], OWN), "port = 2525", async |asking, _| {
        assert_eq!(refusal(&asking.mx("a.test").await), "failed 554 5.4.6");
    });
}

#[test]
fn another_port_of_this_machine_is_another_host() {
    with(known(&[(10, "own.test"), (20, "other.test")], OWN), "port = 2526", async |asking, _| {
        assert_eq!(places(&asking.mx("a.test").await).len(), 2);
    });
}

#[test]
fn own_name_in_the_set_cuts_it_even_without_an_address() {
    with(
        known(&[(10, "other.test"), (20, "Relay.Own.test"), (30, "own.test")], OWN),
        "",
        async |asking, _| {
            assert_eq!(places(&asking.mx("a.test").await), ["other.test 127.0.0.2:25"]);
        },
    );
}

#[test]
fn a_domain_that_is_our_own_address_is_a_loop() {
    let say = |_: &str, kind: u16| if kind == A { Said::addresses(&[[127, 0, 0, 1]]) } else { Said::NoData };
    with(say, "port = 2525", async |asking, _| {
        assert_eq!(refusal(&asking.mx("a.test").await), "failed 554 5.4.6");
    });
}
