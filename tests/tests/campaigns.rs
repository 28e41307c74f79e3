//! Campaigns through the real daemon (B03, B04, B05, B09): each recipient once, whoever dies; letters filled in as they are
//! sent; orders about many recipients at once.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use tests::process::daemon::Stopped;
use tests::process::http::{self, Answer};
use tests::process::sink::Ended;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Daemon, Setup, Sink};

const RUN_MAX: Duration = Duration::from_secs(120);

const API: &str = "[api]\nlisten = [\"127.0.0.1:0\"]\n[unsubscribe]\nbase_url = \"https://lists.here.test\"\n\
                   mailto = \"leave@here.test\"";

const CSV: (&str, &str) = ("Content-Type", "text/csv");

const WINDOW: u64 = 8;
const CONNECTIONS: u64 = 4;

fn daemon(sink: &Sink) -> Daemon {
    Setup::new()
        .relay(sink.address)
        .on_cpus(&[0, 1])
        .with("delivery.window_max", WINDOW.cast_signed())
        .with("delivery.connections_max", CONNECTIONS.cast_signed())
        .with_lines(API)
        .start()
}

fn call(daemon: &Daemon, what: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    http::send(daemon.api[0], what, fields, body).expect("the API answers")
}

fn create(daemon: &Daemon, id: &str, more: Value) -> Answer {
    let mut campaign = json!({
        "envelope_sender": "news@here.test",
        "verp": true,
        "content": "From: News <news@here.test>\nTo: {{email}}\nSubject: Dear {{name|default(\"friend\")}}\n\n\
                    Hello {{name|default(\"friend\")}} from {{town}}!\n",
    });
    let (Value::Object(members), Value::Object(more)) = (&mut campaign, more) else { panic!("two objects") };
    members.extend(more);
    let json = ("Content-Type", "application/json");
    call(daemon, &format!("PUT /api/campaigns/{id}"), &[json], campaign.to_string().as_bytes())
}

fn add(daemon: &Daemon, id: &str, list: &str) -> Answer {
    call(daemon, &format!("POST /api/campaigns/{id}/recipients"), &[CSV], list.as_bytes())
}

fn order(daemon: &Daemon, id: &str, order: &str) -> Value {
    let answer = call(daemon, &format!("POST /api/campaigns/{id}/{order}"), &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn show(daemon: &Daemon, id: &str) -> Value {
    call(daemon, &format!("GET /api/campaigns/{id}"), &[], b"").json()
}

fn count(campaign: &Value, key: &str) -> u64 {
    campaign[key].as_u64().unwrap_or_else(|| panic!("{key} in {campaign}"))
}

/// A list of that many in ten domains.
fn list(numbers: std::ops::Range<u64>) -> String {
    let mut csv = "email,name,town\n".to_owned();
    for number in numbers {
        writeln!(csv, "user{number}@d{}.test,Name {number},Ulm", number % 10).expect("a string takes it");
    }
    csv
}

/// How often each recipient was served.
fn served(sink: &Ended) -> BTreeMap<String, u64> {
    let mut served = BTreeMap::new();
    for delivery in sink.deliveries() {
        *served.entry(delivery.forward_path).or_default() += 1;
    }
    served
}

/// Everybody was, and what is more than once was in flight when we died.
fn assert_each_once(served: &BTreeMap<String, u64>, recipients: u64, deaths: u64) {
    assert_eq!(served.len() as u64, recipients);
    let repeated: u64 = served.values().map(|times| times - 1).sum();
    assert!(repeated <= deaths * WINDOW * CONNECTIONS, "{repeated} repeated in {deaths} deaths");
}

// ---- what is over ----

/// The campaign's file says that it last changed so long ago.
fn set_changed(stopped: &Stopped, number: u16, ago: Duration) {
    let path = stopped.setup.queue().join(format!("campaigns/{number:05}/campaign.json"));
    let text = std::fs::read_to_string(&path).expect("its file");
    let mut entry: Value = serde_json::from_str(&text).expect("JSON");
    let changed = std::time::UNIX_EPOCH.elapsed().expect("after 1970") - ago;
    entry["changed"] = json!(changed.as_secs() * 1000);
    std::fs::write(&path, entry.to_string()).expect("the folder is ours");
}

#[test]
fn what_is_over_is_forgotten_by_order_or_in_its_time_and_its_name_is_free() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    for id in ["spring", "summer", "autumn"] {
        assert_eq!(create(&daemon, id, json!({ "paused": id == "autumn" })).status, 201);
        assert_eq!(add(&daemon, id, &list(0..3)).json()["added"], 3);
    }
    let forget = |daemon: &Daemon, id: &str| call(daemon, &format!("DELETE /api/campaigns/{id}"), &[], b"");
    let refused = |daemon: &Daemon, id: &str| {
        let answer = forget(daemon, id);
        assert_eq!(answer.status, 409, "{answer:?}");
        answer.json()["error"].as_str().expect("text").to_owned()
    };
    daemon.wait_for("delivered", 6, PATIENCE);
    assert!(refused(&daemon, "autumn").contains("cancel it first"));
    assert!(refused(&daemon, "spring").contains("within the last minute"));
    let stopped = daemon.terminate();
    set_changed(&stopped, 1, Duration::from_secs(120));
    set_changed(&stopped, 2, Duration::from_secs(31 * 24 * 3600));
    let daemon = stopped.restart();
    wait::until("summer to be forgotten", PATIENCE, || {
        call(&daemon, "GET /api/campaigns/summer", &[], b"").status == 404
    });
    assert_eq!(count(&show(&daemon, "spring"), "delivered"), 3);
    assert_eq!((forget(&daemon, "spring").status, forget(&daemon, "spring").status), (204, 404));
    assert!(!daemon.setup.queue().join("campaigns/00001").exists());
    // The first number that is free is given out again, and so is the name.
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    assert_eq!(add(&daemon, "spring", &list(0..3)).json()["added"], 3);
    daemon.wait_for("delivered", 3, PATIENCE);
    let daemon = daemon.kill().restart();
    let paused = show(&daemon, "autumn");
    assert_eq!((count(&paused, "waiting"), &paused["state"]), (3, &json!("paused")));
    assert_eq!(sink.end().deliveries().len(), 9);
}

#[test]
fn there_are_no_more_campaigns_and_letters_than_the_configuration_allows() {
    let sink = Sink::start(&[]);
    let limits = "[campaigns]\ncampaigns_max = 2\nmemory_max = 1048576\n";
    let daemon = Setup::new().relay(sink.address).with_lines(&format!("{limits}{API}")).start();
    let error = |answer: Answer| {
        assert_eq!(answer.status, 409, "{answer:?}");
        answer.json()["error"].as_str().expect("text").to_owned()
    };
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    let long = format!("Subject: long\n\n{}", "0123456789\n".repeat(100_000));
    assert!(error(create(&daemon, "summer", json!({ "content": long }))).contains("campaigns.memory_max"));
    assert_eq!(create(&daemon, "summer", json!({})).status, 201);
    assert!(error(create(&daemon, "autumn", json!({}))).contains("campaigns.campaigns_max = 2"));
    assert_eq!(create(&daemon, "summer", json!({})).status, 200);
    sink.end();
}

// ---- letters ----

#[test]
fn each_recipient_gets_its_own_letter_and_its_own_way_out() {
    let sink = Sink::keeping(&[]);
    let daemon = daemon(&sink);
    let created = create(&daemon, "spring", json!({ "unsubscribe": true, "list": "news" }));
    assert_eq!((created.status, &created.json()["fields"]), (201, &json!(["town", "email"])), "{created:?}");
    let csv = "email,name,town\nann@a.test,Änn,Ulm\nbob@b.test,,\"Köln, am Rhein\"\n";
    let added = add(&daemon, "spring", csv);
    assert_eq!((added.status, &added.json()["added"]), (200, &json!(2)), "{added:?}");
    let contents = sink.wait_for_contents(2, PATIENCE);
    let letters: Vec<String> =
        contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
    let of = |to: &str| {
        letters.iter().find(|letter| letter.contains(&format!("\r\nTo: {to}\r\n"))).expect("it came")
    };
    let (ann, bob) = (of("ann@a.test"), of("bob@b.test"));
    assert!(
        ann.contains("Subject: =?UTF-8?Q?Dear_=C3=84nn?=\r\n") && ann.contains("Hello =C3=84nn from Ulm!"),
        "{ann}"
    );
    assert!(bob.contains("Subject: Dear friend\r\n") && bob.contains("from K=C3=B6ln, am Rhein!"), "{bob}");
    let link = |letter: &str| {
        let (_, rest) = letter.split_once("<https://lists.here.test/u/").expect("a link");
        rest.split_once('>').expect("it ends").0.to_owned()
    };
    assert_ne!(link(ann), link(bob));
    for letter in [ann, bob] {
        assert!(letter.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"), "{letter}");
        assert!(letter.contains("<mailto:leave@here.test?subject=unsubscribe%20"), "{letter}");
    }
    let senders: BTreeSet<String> = sink.end().deliveries().into_iter().map(|one| one.reverse_path).collect();
    assert_eq!(senders, ["news+ann=a.test@here.test", "news+bob=b.test@here.test"].map(str::to_owned).into());
}

#[test]
fn who_leaves_by_mail_gets_nothing_more_of_that_list() {
    let sink = Sink::keeping(&[]);
    let daemon = daemon(&sink);
    let csv = "email,town\nann@a.test,Ulm\nbob@b.test,Ulm\n";
    assert_eq!(create(&daemon, "spring", json!({ "unsubscribe": true, "list": "News" })).status, 201);
    assert_eq!(add(&daemon, "spring", csv).status, 200);
    let contents = sink.wait_for_contents(2, PATIENCE);
    let letters = contents.iter().map(|content| String::from_utf8_lossy(content));
    let bobs = letters.into_iter().find(|letter| letter.contains("\r\nTo: bob@b.test\r\n")).expect("it came");
    let (_, rest) = bobs.split_once("<mailto:leave@here.test?subject=unsubscribe%20").expect("a link");
    let (token, _) = rest.split_once('>').expect("it ends");
    // Who gets nothing at all for now is heard all the same.
    let everywhere = "/api/suppressions/bob@b.test";
    let json = ("Content-Type", "application/json");
    assert_eq!(call(&daemon, &format!("PUT {everywhere}"), &[json], b"{}").status, 201);
    // A guess changes nothing.
    for token in ["a".repeat(token.len()).as_str(), token] {
        daemon.client().send(
            "rob@elsewhere.test",
            &["leave@here.test"],
            &format!("From: rob@elsewhere.test\r\nSubject: unsubscribe {token}\r\n\r\n"),
        );
    }
    daemon.wait_for("returns_unsubscribed", 1, PATIENCE);
    daemon.wait_for("returns_unknown", 1, PATIENCE);
    daemon.wait_until_empty(PATIENCE);
    wait::until("bob to be on the list", PATIENCE, || {
        call(&daemon, &format!("GET {everywhere}?list=news"), &[], b"").status == 200
    });
    assert_eq!(call(&daemon, &format!("DELETE {everywhere}"), &[], b"").status, 204);
    let of_list = |id: &str, list: &str| {
        assert_eq!(create(&daemon, id, json!({ "list": list })).status, 201);
        let added = add(&daemon, id, csv).json();
        (count(&added, "added"), count(&added, "suppressed"))
    };
    assert_eq!(of_list("autumn", "news"), (1, 1));
    assert_eq!(of_list("offers", "offers"), (2, 0));
    sink.end();
}

#[test]
fn a_field_without_value_or_default_is_refused_by_the_name_of_its_record() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    let answer = add(&daemon, "spring", "email,name\nann@a.test,Ann\n");
    assert_eq!(answer.status, 422, "{answer:?}");
    let said = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("record 1") && said.contains("\"town\""), "{said}");
    let answer = create(&daemon, "autumn", json!({ "content": "Subject: {% if x %}\n\nx\n" }));
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(count(&show(&daemon, "spring"), "recipients"), 0);
}

#[test]
fn a_single_injection_fills_its_letter_in_as_well() {
    let sink = Sink::keeping(&[]);
    let daemon = daemon(&sink);
    let request = json!({
        "envelope_sender": "news@here.test",
        "content": "From: news@here.test\nTo: {{email}}\nSubject: x\n\nHello {{name}}!\n",
        "recipients": [
            { "email": "ann@a.test", "substitutions": { "name": "Ann" } },
            { "email": "bob@a.test", "substitutions": { "name": "Bob" } },
        ],
    });
    let json = ("Content-Type", "application/json");
    let answer = call(&daemon, "POST /api/inject/v1", &[json], request.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["success_count"]), (200, &json!(2)), "{answer:?}");
    // What is on disk is one template: a start reads it back.
    let contents = sink.wait_for_contents(2, PATIENCE);
    let all: Vec<String> =
        contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
    for (to, name) in [("ann@a.test", "Ann"), ("bob@a.test", "Bob")] {
        let wanted = |letter: &&String| {
            letter.contains(&format!("To: {to}\r\n")) && letter.contains(&format!("Hello {name}!"))
        };
        assert_eq!(all.iter().filter(wanted).count(), 1, "{all:?}");
    }
}

// ---- once ----

#[test]
fn every_request_replayed_adds_nobody() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    for status in [201, 200] {
        assert_eq!(create(&daemon, "spring", json!({})).status, status);
    }
    for (added, duplicate) in [(500, 0), (0, 500)] {
        let answer = add(&daemon, "spring", &list(0..500)).json();
        assert_eq!((count(&answer, "added"), count(&answer, "duplicate")), (added, duplicate), "{answer}");
    }
    // Some that are new among some that are not, and one of them twice.
    let answer =
        add(&daemon, "spring", &(list(400..600) + "user0@D0.test,Name,Ulm\nuser599@d9.test,Name,Ulm\n"))
            .json();
    assert_eq!((count(&answer, "added"), count(&answer, "duplicate")), (100, 102), "{answer}");
    let other = create(&daemon, "spring", json!({ "content": "Subject: another\n\nletter\n" }));
    assert_eq!(other.status, 409, "{other:?}");
    daemon.wait_until_empty(RUN_MAX);
    let daemon = daemon.kill().restart();
    assert_eq!(count(&add(&daemon, "spring", &list(0..600)).json(), "duplicate"), 600);
    let shown = show(&daemon, "spring");
    assert_eq!(
        (count(&shown, "recipients"), count(&shown, "delivered"), count(&shown, "waiting")),
        (600, 600, 0)
    );
    assert_each_once(&served(&sink.end()), 600, 0);
}

#[test]
fn killed_at_any_time_and_started_again_each_recipient_is_in_it_once() {
    let sink = Sink::start(&[]);
    let mut daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    let (everybody, count_of_all) = (list(0..20_000), 20_000);
    let mut deaths = 0;
    // Each time it dies a little later in the request, which its client sends again.
    for pause_ms in [5, 30, 90, 200] {
        let address = daemon.api[0];
        let body = everybody.clone();
        let client = std::thread::spawn(move || {
            let _ = http::send(address, "POST /api/campaigns/spring/recipients", &[CSV], body.as_bytes());
        });
        std::thread::sleep(Duration::from_millis(pause_ms));
        daemon = daemon.kill().restart();
        client.join().expect("the client ends with its connection");
        deaths += 1;
    }
    let answer = add(&daemon, "spring", &everybody).json();
    assert_eq!(count(&answer, "added") + count(&answer, "duplicate"), count_of_all, "{answer}");
    daemon.wait_until_empty(RUN_MAX);
    let shown = show(&daemon, "spring");
    assert_eq!((count(&shown, "recipients"), count(&shown, "waiting")), (count_of_all, 0), "{shown}");
    assert_each_once(&served(&sink.end()), count_of_all, deaths);
}

#[test]
fn a_client_that_leaves_at_any_time_has_added_everybody_once() {
    const BATCH: u64 = 2000;
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    let mut begin = 0;
    for pause_ms in [0, 1, 2, 4, 8, 12, 16, 24, 32, 64] {
        let batch = list(begin..begin + BATCH);
        let what = "POST /api/campaigns/spring/recipients";
        let left = http::ask(daemon.api[0], what, &[CSV], batch.as_bytes()).expect("it listens");
        std::thread::sleep(Duration::from_millis(pause_ms));
        drop(left);
        let answer = add(&daemon, "spring", &batch).json();
        assert_eq!(count(&answer, "added") + count(&answer, "duplicate"), BATCH, "{answer}");
        begin += BATCH;
    }
    daemon.wait_until_empty(RUN_MAX);
    let daemon = daemon.kill().restart();
    daemon.wait_until_empty(RUN_MAX);
    let shown = show(&daemon, "spring");
    assert_eq!((count(&shown, "recipients"), count(&shown, "waiting")), (begin, 0), "{shown}");
    assert_each_once(&served(&sink.end()), begin, 1);
}

#[test]
fn books_that_cannot_be_written_hold_a_batch_back_and_nobody_is_added_twice() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    let keys = daemon.setup.queue().join("campaigns/00001/keys");
    std::fs::write(&keys, "no folder can be made here").expect("the folder is ours");
    for numbers in [0..50, 0..60] {
        assert_eq!(add(&daemon, "spring", &list(numbers)).status, 503);
    }
    assert_eq!(count(&show(&daemon, "spring"), "recipients"), 0);
    assert_eq!(call(&daemon, "DELETE /api/campaigns/spring", &[], b"").status, 409, "a batch waits");
    std::fs::remove_file(&keys).expect("the folder is ours");
    // Once they can be written, and nobody has to ask.
    wait::until("the batch to be noted", RUN_MAX, || count(&show(&daemon, "spring"), "delivered") == 50);
    let answer = add(&daemon, "spring", &list(0..60)).json();
    assert_eq!((count(&answer, "added"), count(&answer, "duplicate")), (10, 50), "{answer}");
    daemon.wait_until_empty(RUN_MAX);
    // Where an end comes first, the next start learns the batch.
    assert_eq!(create(&daemon, "summer", json!({})).status, 201);
    let keys = daemon.setup.queue().join("campaigns/00002/keys");
    std::fs::write(&keys, "no folder can be made here").expect("the folder is ours");
    assert_eq!(add(&daemon, "summer", &list(100..150)).status, 503);
    let stopped = daemon.terminate();
    std::fs::remove_file(&keys).expect("the folder is ours");
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    let answer = add(&daemon, "summer", &list(100..150)).json();
    assert_eq!(count(&answer, "duplicate"), 50, "{answer}");
    assert_eq!(count(&show(&daemon, "spring"), "recipients"), 60);
    assert_each_once(&served(&sink.end()), 110, 1);
}

#[test]
fn an_archive_gets_the_letter_of_each_batch_and_its_hash_is_the_letters() {
    let sink = Sink::keeping(&[]);
    let setup = Setup::new().relay(sink.address).with_lines(API).with("keep.hash", true);
    let daemon = setup.with("keep.archive", vec!["all@archive.test"]).start();
    let letter = "From: News <news@here.test>\nSubject: x\n\nThe letter itself.\n";
    assert_eq!(create(&daemon, "spring", json!({ "content": letter })).status, 201);
    assert_eq!(count(&add(&daemon, "spring", &list(0..2)).json(), "added"), 2);
    let contents = sink.wait_for_contents(3, PATIENCE);
    let is_letter =
        |content: &Vec<u8>| String::from_utf8_lossy(content).contains("\r\nThe letter itself.\r\n");
    assert!(contents.iter().all(is_letter), "{contents:?}");
    daemon.wait_until_empty(PATIENCE);
    let sent = served(&sink.end());
    assert_eq!((sent.len(), sent["all@archive.test"]), (3, 1));
    let stopped = daemon.terminate();
    let log = std::fs::read_to_string(stopped.setup.delivery_log()).expect("it is there");
    let hashes: Vec<&str> = log.lines().filter(|line| line.contains("\"octets\"")).collect();
    assert_eq!(hashes.len(), 1, "{log}");
    let noted: Value = serde_json::from_str(hashes[0]).expect("JSON");
    assert!(count(&noted, "octets") >= letter.len() as u64, "{noted}");
}

#[test]
fn whom_a_list_names_is_told_to_who_injects_unless_the_lane_is_exempt() {
    let sink = Sink::start(&[]);
    let lines = format!("{API}\n[suppression]\nexempt_lanes = [\"urgent\"]\n");
    let daemon = Setup::new().relay(sink.address).with_lines(&lines).start();
    let json = ("Content-Type", "application/json");
    assert_eq!(call(&daemon, "PUT /api/suppressions/ann@a.test", &[json], b"{}").status, 201);
    let inject = |more: Value| {
        let mut request = json!({
            "envelope_sender": "news@here.test", "content": "Subject: x\n\nHello\n",
            "recipients": [{ "email": "ann@a.test" }, { "email": "bob@b.test" }],
        });
        let (Value::Object(members), Value::Object(more)) = (&mut request, more) else {
            panic!("two objects")
        };
        members.extend(more);
        call(&daemon, "POST /api/inject/v1", &[json], request.to_string().as_bytes())
    };
    let reply = inject(json!({ "campaign": "spring" })).json();
    assert_eq!((count(&reply, "success_count"), count(&reply, "fail_count")), (1, 1), "{reply}");
    assert_eq!(reply["errors"][0], "recipients[0].email: it is on the suppression list");
    let reply = inject(json!({ "campaign": "alarm", "lane": "urgent" })).json();
    assert_eq!((count(&reply, "success_count"), count(&reply, "fail_count")), (2, 0), "{reply}");
    let content = "Subject: x\nList-Unsubscribe: <https://old.test/x>\n\nHello\n";
    let twofold = json!({ "campaign": "summer", "list": "news", "unsubscribe": true, "content": content });
    let refused = inject(twofold);
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.body.contains("content: List-Unsubscribe is there already"), "{refused:?}");
    daemon.wait_until_empty(RUN_MAX);
    assert_each_once(&served(&sink.end()), 2, 1);
}

// ---- orders ----

#[test]
fn paused_waits_through_a_restart_and_cancelled_never_goes() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({ "paused": true })).status, 201);
    assert_eq!(count(&add(&daemon, "spring", &list(0..3000)).json(), "added"), 3000);
    let stat = daemon.setup.queue_stat();
    assert_eq!(stat["states"]["held"].as_u64().or(stat["held"].as_u64()), Some(3000), "{stat}");
    let daemon = daemon.kill().restart();
    assert_eq!(show(&daemon, "spring")["state"], "paused");
    assert_eq!(order(&daemon, "spring", "resume")["state"], "running");
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(create(&daemon, "autumn", json!({ "paused": true })).status, 201);
    assert_eq!(count(&add(&daemon, "autumn", &list(5000..9000)).json(), "added"), 4000);
    assert_eq!(order(&daemon, "autumn", "cancel")["state"], "cancelled");
    daemon.wait_until_empty(RUN_MAX);
    let shown = show(&daemon, "autumn");
    assert_eq!((count(&shown, "cancelled"), count(&shown, "delivered")), (4000, 0), "{shown}");
    let refused = call(&daemon, "POST /api/campaigns/autumn/resume", &[], b"");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(add(&daemon, "autumn", &list(0..1)).status, 409);
    assert_each_once(&served(&sink.end()), 3000, 0);
}

#[test]
fn what_was_deferred_ends_with_its_campaign() {
    let sink = Sink::start(&["--fault", "rcpt=451"]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({})).status, 201);
    assert_eq!(count(&add(&daemon, "spring", &list(0..300)).json(), "added"), 300);
    daemon.wait_for_at_least("deferred_recipients", 300, PATIENCE);
    order(&daemon, "spring", "cancel");
    daemon.wait_until_empty(PATIENCE);
    assert_eq!(count(&show(&daemon, "spring"), "cancelled"), 300);
}

#[test]
fn a_rate_holds_over_all_cores() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    assert_eq!(create(&daemon, "spring", json!({ "rate": "200/s" })).status, 201);
    assert_eq!(count(&add(&daemon, "spring", &list(0..600)).json(), "added"), 600);
    daemon.wait_until_empty(RUN_MAX);
    let mut at: Vec<u64> = sink.end().deliveries().into_iter().map(|delivery| delivery.at_ns).collect();
    at.sort_unstable();
    // In any second the rate, and what may be made up for; arrivals are later than beginnings by the time of a transaction.
    let most = at
        .iter()
        .enumerate()
        .map(|(first, from)| at[first..].partition_point(|other| *other < from + 1_000_000_000));
    assert!(most.max().is_some_and(|most| most as u64 <= 200 + 10 + WINDOW * CONNECTIONS));
    assert_eq!(at.len(), 600);
}

// ---- the command line ----

#[test]
fn a_list_goes_in_by_command_and_the_same_command_adds_only_who_is_missing() {
    let sink = Sink::start(&[]);
    let daemon = daemon(&sink);
    let (letter, csv) = (daemon.setup.folder().join("letter.eml"), daemon.setup.folder().join("list.csv"));
    std::fs::write(&letter, "From: News <news@here.test>\nTo: {{email}}\nSubject: x\n\nHello {{name}}\n")
        .expect("ours");
    let api = daemon.api[0].to_string();
    let run = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--api", &api, "--json"]).collect();
        let output = wait::succeed(&mut daemon.setup.command(&words), PATIENCE);
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let (letter, csv_path) = (letter.to_str().expect("UTF-8"), csv.to_str().expect("UTF-8").to_owned());
    for (numbers, added) in [(0..100, 100), (0..150, 50)] {
        std::fs::write(&csv, list(numbers)).expect("ours");
        let words = ["inject", "--list", &csv_path, "--message", letter, "--campaign", "spring", "--verp"];
        assert_eq!(count(&run(&words), "added"), added);
    }
    assert_eq!(run(&["campaign", "pause", "spring"])["state"], "paused");
    assert_eq!(run(&["campaign", "rate", "spring", "50/s"])["rate"], "50/s");
    assert_eq!(run(&["campaign", "list"])["id"], "spring");
    assert_eq!(run(&["campaign", "cancel", "spring"])["state"], "cancelled");
    let unknown =
        wait::finish(&mut daemon.setup.command(&["campaign", "show", "summer", "--api", &api]), PATIENCE);
    assert_eq!(unknown.status.code(), Some(65), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such campaign"), "{unknown:?}");
}
