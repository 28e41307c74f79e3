//! Faults as they are written, and when they strike.

use super::*;

fn at(address: &[u8]) -> Place<'_> {
    Place { address, source: Some([127, 0, 0, 2].into()), helo: b"mta1.test" }
}

#[test]
fn faults_are_read_as_written() {
    let fault: Fault = "rcpt=550:0.01:by-address".parse().unwrap();
    assert_eq!((fault.stage, fault.action), (Stage::Rcpt, FaultAction::Reply(550)));
    assert!(fault.conditions.by_address);
    assert_eq!("bdat=drop-after-accept:1".parse::<Fault>().unwrap().stage, Stage::Dot);
    assert_eq!("content=421".parse::<Fault>().unwrap().action, FaultAction::Reply(421));
    for wrong in [
        "rcpt",
        "rcpt=250:1",
        "mail=drop-after-accept:1",
        "dot=450:2",
        "dot=450:1:by-address",
        "x=450:1",
        "handshake=421",
        "content=450",
        "mail=alert",
        "mail[first=x]=450",
        "mail[when=now]=450",
        "mail[=450",
    ] {
        assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
    }
}

#[test]
fn replies_are_read_as_written() {
    let fault =
        Fault::reply("dot[first=2,source=127.0.0.2]=421 4.7.28 Too much\\n4.7.28 See = there").unwrap();
    let said = "421-4.7.28 Too much\r\n421 4.7.28 See = there\r\n";
    assert_eq!(fault.action, FaultAction::Say(421, said.into()));
    assert_eq!((fault.conditions.first, fault.conditions.source), (Some(2), Some([127, 0, 0, 2].into())));
    for wrong in ["dot=999 x", "dot=199 x", "dot=x", "content=450 x", "handshake=421 x", "dot=450 a\r\n250 b"]
    {
        assert!(Fault::reply(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_address_always_meets_the_same_fate_at_about_the_rate_asked() {
    let faults = Faults::new(&["rcpt=550:0.1:by-address".parse().unwrap()], 7);
    let struck = |n: u32, session| {
        let address = format!("u{n}@d.test");
        faults.strike(Stage::Rcpt, at(address.as_bytes()), &mut Dice::new(7, session)).is_some()
    };
    let count = (0..10_000).filter(|&n| struck(n, 1)).count();
    assert!((800..1200).contains(&count), "{count}");
    assert!((0..1000).all(|n| struck(n, 1) == struck(n, 2)));
}

#[test]
fn certain_faults_always_strike_and_impossible_ones_never() {
    let mut dice = Dice::new(1, 1);
    let faults = Faults::new(&["mail=450:1".parse().unwrap(), "rcpt=450:0".parse().unwrap()], 1);
    assert!((0..1000).all(|_| faults.strike(Stage::Mail, at(b""), &mut dice).is_some()));
    assert!((0..1000).all(|_| faults.strike(Stage::Rcpt, at(b""), &mut dice).is_none()));
}

#[test]
fn conditions_choose_whom_and_how_often() {
    let mut dice = Dice::new(1, 1);
    let rules = [
        "rcpt[address=@d1.test,first=2,after=1]=450",
        "rcpt[source=127.0.0.9]=451",
        "rcpt[helo=MTA1.test]=452",
    ];
    let faults: Vec<Fault> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let faults = Faults::new(&faults, 1);
    let mut code = |address: &[u8], helo: &[u8]| match faults.strike(
        Stage::Rcpt,
        Place { helo, ..at(address) },
        &mut dice,
    ) {
        Some(FaultAction::Reply(code)) => *code,
        _ => 0,
    };
    let codes = [b"a@d1.test"; 4].map(|address| code(address, b"x"));
    assert_eq!(codes, [0, 450, 450, 0]);
    assert_eq!((code(b"a@xd1.test", b"x"), code(b"a@other", b"mta1.TEST")), (0, 452));
}
