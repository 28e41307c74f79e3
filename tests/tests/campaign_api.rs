//! Campaigns over HTTP (B02, B09), before campaigns that are kept in memory: what is asked, what is answered, and lists
//! of recipients that come in pieces, packed, broken or too fast.

#[path = "campaign_api/memory.rs"]
#[allow(dead_code, reason = "one of the two tests that share it needs each part")]
mod memory;

use engine::api::{CampaignId, Refused};
use flate2::Compression;
use flate2::write::GzEncoder;
use memory::Memory;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tests::process::http::{self, Answer};
use tests::process::peer;
use tests::process::setup::temporary_folder;
use tests::process::wait::{self, PATIENCE};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const CSV: (&str, &str) = ("Content-Type", "text/csv; charset=utf-8");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

struct Office {
    memory: Arc<Memory>,
    address: SocketAddr,
}

impl Office {
    fn open() -> Office {
        let memory = Arc::new(Memory::default());
        let address = memory::listen(&memory, "");
        Office { memory, address }
    }

    /// With a campaign `spring` that names no fields.
    fn with_spring() -> Office {
        let office = Office::open();
        assert_eq!(office.create("spring", &letter("Hello")).status, 201);
        office
    }

    fn send(&self, what: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        http::send(self.address, what, fields, body).expect("an answer")
    }

    fn create(&self, id: &str, request: &Value) -> Answer {
        self.send(&format!("PUT /api/campaigns/{id}"), &[JSON], request.to_string().as_bytes())
    }

    fn add(&self, kind: (&str, &str), list: &str) -> Answer {
        self.send("POST /api/campaigns/spring/recipients", &[kind], list.as_bytes())
    }

    fn order(&self, verb: &str, body: &Value) -> Answer {
        self.send(&format!("POST /api/campaigns/spring/{verb}"), &[JSON], body.to_string().as_bytes())
    }

    fn addresses(&self) -> Vec<String> {
        let added = self.memory.added.lock().expect("no panic");
        added.iter().map(|recipient| recipient.mailbox.to_string()).collect()
    }
}

fn letter(text: &str) -> Value {
    json!({
        "envelope_sender": "news@here.test",
        "content": format!("From: news@here.test\nSubject: spring\n\n{text}\n"),
        "list": "news",
        "rate": "1000/min",
    })
}

// ---- the campaign itself ----

#[test]
fn a_campaign_is_created_once_and_shown() {
    let office = Office::open();
    let created = office.create("spring", &letter("Hello"));
    assert_eq!(created.status, 201, "{created:?}");
    let shown = created.json();
    let expected = json!({
        "id": "spring", "state": "running", "created": "1970-01-01T00:00:00.000Z", "envelope_sender": "news@here.test",
        "list": "news", "rate": "1000/min", "fields": [], "recipients": 0, "delivered": 0, "failed": 0, "waiting": 0,
        "suppressed": 0, "cancelled": 0,
    });
    assert_eq!(shown, expected);
    assert_eq!(office.create("spring", &letter("Hello")).status, 200, "the same again");
    assert_eq!(office.create("spring", &letter("Bye")).status, 409, "another of that name");
    assert_eq!(office.send("GET /api/campaigns/spring", &[], b"").json(), shown);
    assert_eq!(office.send("GET /api/campaigns/autumn", &[], b"").status, 404);
    assert_eq!(office.send("GET /api/campaigns/a%20b", &[], b"").status, 404);
}

#[test]
fn what_is_wrong_with_a_campaign_is_named() {
    let office = Office::open();
    let wrong = |more: (&str, Value)| {
        let mut request = letter("Hello");
        request[more.0] = more.1;
        let answer = office.create("spring", &request);
        (answer.status, answer.json()["error"].as_str().expect("text").to_owned())
    };
    let starts = |(status, error): (u16, String), begin: &str| status == 422 && error.starts_with(begin);
    assert!(starts(wrong(("rate", json!("fast"))), "rate: \"fast\" is no rate"));
    assert!(starts(wrong(("list", json!("a b"))), "list: a name has"));
    assert!(starts(wrong(("recipients", json!([]))), "recipients: unknown field"));
    assert!(starts(wrong(("envelope_sender", json!("x"))), "envelope_sender: \"x\" is no mail address"));
    let broken = json!("From: a@here.test\nSubject: {{ x\n\nHello\n");
    let (status, error) = wrong(("content", broken));
    assert!(starts((status, error.clone()), "content: header, line 2"), "{error}");
}

#[test]
fn campaigns_are_listed_page_by_page() {
    let office = Office::open();
    for id in ["c", "a", "b"] {
        assert_eq!(office.create(id, &letter("Hello")).status, 201);
    }
    let page = |query: &str| office.send(&format!("GET /api/campaigns{query}"), &[], b"").json();
    let ids = |page: &Value| -> Vec<String> {
        let campaigns = page["campaigns"].as_array().expect("a list");
        campaigns.iter().map(|campaign| campaign["id"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(ids(&page("")), ["a", "b", "c"]);
    let first = page("?limit=2");
    assert_eq!((ids(&first), &first["next"]), (vec!["a".to_owned(), "b".to_owned()], &json!("b")));
    let last = page("?limit=2&after=b");
    assert_eq!((ids(&last), last.get("next")), (vec!["c".to_owned()], None));
    for wrong in ["?limit=0", "?limit=x", "?limit=1001", "?after=a%20b", "?page=1"] {
        assert_eq!(office.send(&format!("GET /api/campaigns{wrong}"), &[], b"").status, 400, "{wrong}");
    }
}

#[test]
fn orders_are_carried_out_and_their_outcome_is_shown() {
    let office = Office::with_spring();
    let state = |answer: Answer| (answer.status, answer.json()["state"].as_str().map(str::to_owned));
    assert_eq!(state(office.order("pause", &Value::Null)), (200, Some("paused".into())));
    assert_eq!(state(office.order("resume", &Value::Null)), (200, Some("running".into())));
    assert_eq!(office.order("rate", &json!({ "rate": "5/s" })).json()["rate"], "5/s");
    assert_eq!(office.order("rate", &json!({ "rate": null })).json()["rate"], Value::Null);
    assert_eq!(office.order("rate", &json!({})).status, 422);
    assert_eq!(state(office.order("cancel", &Value::Null)), (200, Some("cancelled".into())));
    assert_eq!(office.order("resume", &Value::Null).status, 409);
    assert_eq!(office.order("explode", &Value::Null).status, 404);
    assert_eq!(office.send("POST /api/campaigns/autumn/pause", &[], b"").status, 404);
    assert_eq!(office.send("GET /api/campaigns/spring/pause", &[], b"").status, 405);
}

// ---- its recipients ----

#[test]
fn every_record_is_new_known_suppressed_or_invalid() {
    let office = Office::with_spring();
    let list = "email,name\nann@a.test,Ann\nbob,Bob\nann@A.test,Ann\ncy@suppressed.test,\n";
    let answer = office.add(CSV, list);
    assert_eq!(answer.status, 200, "{answer:?}");
    let error = "record 2 (line 3): email: \"bob\" is no mail address: the address has no @";
    let expected =
        json!({ "durable": 4, "added": 1, "duplicate": 1, "suppressed": 1, "invalid": 1, "errors": [error] });
    assert_eq!(answer.json(), expected);
    assert_eq!(office.send("GET /api/campaigns/spring", &[], b"").json()["recipients"], 1);
    // Sent again, nobody is added.
    assert_eq!(office.add(CSV, list).json()["duplicate"], 2);
}

#[test]
fn lines_of_json_and_csv_are_the_same_list() {
    let office = Office::with_spring();
    assert_eq!(office.add(NDJSON, "{\"email\":\"ann@a.test\",\"name\":\"Ann\"}\n").json()["added"], 1);
    assert_eq!(office.add(CSV, "name,email\nBob,bob@b.test\n").json()["added"], 1);
    let added = office.memory.added.lock().expect("no panic");
    let names: Vec<_> = added.iter().map(|recipient| recipient.values.get("name")).collect();
    assert_eq!(names, [Some("Ann"), Some("Bob")]);
    drop(added);
    assert_eq!(office.add(JSON, "[]").status, 415);
    assert_eq!(office.send("POST /api/campaigns/spring/recipients", &[], b"email\n").status, 415);
    assert_eq!(office.send("POST /api/campaigns/autumn/recipients", &[CSV], b"email\n").status, 404);
}

#[test]
fn an_error_says_where_and_how_many_records_are_durable() {
    let office = Office::with_spring();
    let mut list = String::from("email,name\n");
    for number in 0..25_000 {
        list.push_str(&format!("u{number}@a.test,{number}\n"));
    }
    list.push_str("ann@a.test,Ann,Oslo\nbob@a.test,Bob\n");
    let answer = office.add(CSV, &list);
    assert_eq!(answer.status, 422);
    let reply = answer.json();
    let error = "record 25001 (line 25002): 3 fields, and the header row has 2: quote fields that have commas in them";
    assert_eq!(
        (&reply["error"], &reply["record"], &reply["line"]),
        (&json!(error), &json!(25_001), &json!(25_002))
    );
    assert_eq!((&reply["durable"], &reply["added"]), (&json!(25_000), &json!(25_000)));
    assert_eq!(office.addresses().len(), 25_000);
}

#[test]
fn a_list_that_lacks_what_the_letter_names_is_refused_at_its_header() {
    let office = Office::open();
    let created =
        office.create("spring", &letter("Dear {{ first_name }} of {{ town | default(\"somewhere\") }}"));
    assert_eq!((created.status, &created.json()["fields"]), (201, &json!(["first_name"])), "{created:?}");
    let answer = office.add(CSV, "email,name\nann@a.test,Ann\n");
    assert!(answer.status == 422 && answer.body.contains("first_name"), "{answer:?}");
    assert_eq!(office.add(CSV, "email,first_name\nann@a.test,Ann\n").json()["added"], 1);
}

#[test]
fn beside_email_an_address_is_a_field_and_else_the_mailbox() {
    let office = Office::open();
    assert_eq!(office.create("spring", &letter("To {{ address }}")).status, 201);
    let answer = office.add(CSV, "address,name\nann@a.test,Ann\n");
    assert!(answer.status == 422 && answer.body.contains("\\\"address\\\""), "{answer:?}");
    assert_eq!(answer.json()["durable"], 0);
    assert_eq!(office.add(CSV, "name,address,email\nAnn,12 Main St,ann@a.test\n").json()["added"], 1);
    let line = "{\"address\":\"3 High St\",\"email\":\"bob@b.test\"}\n";
    assert_eq!(office.add(NDJSON, line).json()["added"], 1);
    assert_eq!(office.addresses(), ["ann@a.test", "bob@b.test"]);
    let added = office.memory.added.lock().expect("no panic");
    let fields: Vec<_> = added.iter().map(|recipient| recipient.values.get("address")).collect();
    assert_eq!(fields, [Some("12 Main St"), Some("3 High St")]);
}

#[test]
fn a_packed_list_is_unpacked_on_its_way() {
    let office = Office::with_spring();
    let packed = zip("email\nann@a.test\nbob@b.test\n".as_bytes());
    let gzip = ("Content-Encoding", "gzip");
    let send = |body: &[u8]| office.send("POST /api/campaigns/spring/recipients", &[CSV, gzip], body);
    assert_eq!(send(&packed).json()["added"], 2);
    let cut_off = send(&packed[..packed.len() - 4]);
    assert_eq!((cut_off.status, &cut_off.json()["durable"]), (400, &json!(2)));
    let bomb = send(&zip(&[&b"email\n"[..], &vec![b'\n'; 256 << 20]].concat()));
    assert!(bomb.status == 400 && bomb.body.contains("200 times"), "{bomb:?}");
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_full_log_is_waited_for_and_then_told() {
    let office = Office::with_spring();
    office.memory.refuse(&Refused::Full, 3);
    assert_eq!(office.add(CSV, "email\nann@a.test\n").json()["added"], 1);
    office.memory.refuse(&Refused::Full, 40);
    let answer = office.add(CSV, "email\nbob@a.test\n");
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("10")), "{answer:?}");
    assert_eq!(answer.json()["durable"], 0);
    office.memory.refuse(&Refused::Broken, 1);
    assert_eq!(office.add(CSV, "email\nbob@a.test\n").status, 503);
}

#[test]
fn a_client_that_goes_away_leaves_what_was_whole() {
    let office = Office::with_spring();
    let mut stream = TcpStream::connect(office.address).expect("somebody listens");
    write!(
        stream,
        "POST /api/campaigns/spring/recipients HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\n"
    )
    .expect("sent");
    write!(stream, "Content-Length: 1000000\r\n\r\nemail\nann@a.test\nbob@b.te").expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("open");
    drop(stream);
    // What the half list brought is in the campaign or not; nobody is in it by half an address.
    let list = "email\nann@a.test\nbob@b.test\n";
    let answer = office.add(CSV, list).json();
    assert_eq!(answer["durable"], 2);
    let addresses = office.addresses();
    assert!(addresses.iter().all(|address| list.contains(&format!("\n{address}\n"))), "{addresses:?}");
}

#[test]
fn curl_streams_a_file_in_chunks() {
    let Some(mut curl) = peer("curl") else { return };
    let office = Office::with_spring();
    let folder = temporary_folder();
    let file = folder.path().join("list.csv");
    let list: String = (0..50_000).map(|number| format!("u{number}@a.test\n")).collect();
    std::fs::write(&file, format!("email\n{list}")).expect("ours");
    let url = format!("http://{}/api/campaigns/spring/recipients", office.address);
    curl.args([
        "--silent",
        "--show-error",
        "--header",
        "Content-Type: text/csv",
        "--header",
        "Transfer-Encoding: chunked",
    ]);
    let output =
        wait::succeed(curl.args(["--request", "POST", "--upload-file"]).arg(&file).arg(&url), PATIENCE);
    let reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&reply["added"], &reply["invalid"]), (&json!(50_000), &json!(0)), "{reply}");
    let batches = office.memory.batches.lock().expect("no panic").clone();
    assert!(batches.iter().all(|len| *len <= 10_000), "{batches:?}");
}

const REQUESTS: &str = r#"
import sys, requests
url = sys.argv[1]
def rows():
    yield b"email,name\n"
    for number in range(20000):
        yield f"u{number}@a.test,{number}\n".encode()
    yield b"this is no row\n"
    for number in range(200000):
        yield f"v{number}@a.test,{number}\n".encode()
reply = requests.post(url, data=rows(), headers={"Content-Type": "text/csv"})
assert reply.status_code == 422, reply
assert reply.json()["durable"] == 20000 and reply.json()["record"] == 20001, reply.json()
"#;

#[test]
fn pythons_requests_hears_of_an_error_while_it_still_sends() {
    let Some(mut python) = peer("python3") else { return };
    if !python_has("requests") {
        return peer::skip("Python's requests is not installed");
    }
    let office = Office::with_spring();
    let url = format!("http://{}/api/campaigns/spring/recipients", office.address);
    wait::succeed(python.args(["-c", REQUESTS, &url]), PATIENCE);
    assert!(
        office
            .memory
            .shown(&CampaignId::parse("spring").expect("a name"))
            .expect("it is there")
            .counts
            .recipients
            == 20_000
    );
}

fn python_has(module: &str) -> bool {
    let tried = std::process::Command::new("python3").args(["-c", &format!("import {module}")]).output();
    tried.is_ok_and(|output| output.status.success())
}
