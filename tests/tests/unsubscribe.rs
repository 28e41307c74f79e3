//! Leaving a list by its URL (B23, RFC 8058): by mailbox providers in one POST, by people in a browser with one button.

use engine::access::{Counts, SessionLimits};
use engine::api::serve::{Encryption, Front, serve};
use engine::api::unsubscribe::{Leaving, router};
use engine::api::{Promise, Refused};
use engine::events::Way;
use message::Mailbox;
use message::unsubscribe::{Subscription, UnsubscribeKey};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tests::process::Browser;
use tests::process::http::{self, Answer};

const SECRET: [u8; 32] = [7; 32];
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const ONE_CLICK: &[u8] = b"List-Unsubscribe=One-Click";

/// Who left what, and how each said so.
#[derive(Default)]
struct Memory {
    left: Mutex<BTreeSet<(String, String)>>,
    ways: Mutex<Vec<Way>>,
    is_broken: AtomicBool,
}

impl Leaving for Memory {
    fn leave<'a>(
        &'a self,
        list: &'a str,
        address: &'a Mailbox,
        way: Way,
    ) -> Promise<'a, Result<bool, Refused>> {
        Box::pin(async move {
            if self.is_broken.load(Ordering::Relaxed) {
                return Err(Refused::Broken);
            }
            self.ways.lock().expect("no panic").push(way);
            let mut left = self.left.lock().expect("no panic");
            Ok(left.insert((list.to_owned(), address.to_string())))
        })
    }
}

struct Page {
    memory: Arc<Memory>,
    address: SocketAddr,
}

impl Page {
    fn open() -> Page {
        let memory = Arc::new(Memory::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a socket");
        let front = Front {
            router: router(&SECRET, Arc::clone(&memory) as Arc<_>),
            encryption: Encryption::default(),
            limits: SessionLimits::default(),
            counts: Arc::<Counts>::default(),
            idle: Duration::from_secs(30),
        };
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            runtime.block_on(async {
                serve(tokio::net::TcpListener::from_std(listener).expect("a listener"), front, stopping)
                    .await;
            });
        });
        Page { memory, address }
    }

    fn send(&self, what: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        http::send(self.address, what, fields, body).expect("an answer")
    }

    fn left(&self) -> Vec<(String, String)> {
        self.memory.left.lock().expect("no panic").iter().cloned().collect()
    }

    fn ways(&self) -> Vec<Way> {
        self.memory.ways.lock().expect("no panic").clone()
    }
}

fn path(list: &str, address: &str) -> String {
    let address = Mailbox::parse(address).expect("an address");
    let mut token = Vec::new();
    let subscription = Subscription::new(list, address.as_ref()).expect("short");
    UnsubscribeKey::new(&SECRET).token(&subscription, &mut token);
    format!("/u/{}", String::from_utf8(token).expect("ASCII"))
}

fn ann() -> Vec<(String, String)> {
    vec![("news".to_owned(), "ann@example.net".to_owned())]
}

// ---- programs ----

#[test]
fn one_click_is_one_post_and_the_second_changes_nothing() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    for _ in 0..2 {
        let answer = page.send(&format!("POST {path}"), &[FORM], ONE_CLICK);
        assert_eq!((answer.status, answer.field("location")), (200, None), "no redirect: {answer:?}");
        assert!(answer.body.contains("no more mail to <strong>ann@example.net</strong>"), "{}", answer.body);
    }
    assert_eq!(page.left(), ann());
}

#[test]
fn a_form_of_the_other_kind_does_as_well() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    let form =
        "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n";
    let kind = ("Content-Type", "multipart/form-data; boundary=x");
    assert_eq!(page.send(&format!("POST {path}"), &[kind], form.as_bytes()).status, 200);
    assert_eq!((page.left(), page.ways()), (ann(), vec![Way::OneClick]));
}

#[test]
fn the_button_is_told_from_a_providers_post() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    let form = page.send(&format!("GET {path}"), &[], b"").body;
    for field in ["name=\"List-Unsubscribe\" value=\"One-Click\"", "name=\"way\" value=\"page\""] {
        assert!(form.contains(field), "{form}");
    }
    let (pressed, other) =
        (&b"List-Unsubscribe=One-Click&way=page"[..], &b"List-Unsubscribe=One-Click&way=other"[..]);
    for body in [ONE_CLICK, pressed, other, b""] {
        assert_eq!(page.send(&format!("POST {path}"), &[FORM], body).status, 200);
    }
    assert_eq!(page.ways(), [Way::OneClick, Way::Page, Way::OneClick, Way::OneClick]);
}

#[test]
fn following_the_link_changes_nothing() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    for method in ["GET", "HEAD"] {
        assert_eq!(page.send(&format!("{method} {path}"), &[], b"").status, 200);
    }
    assert_eq!(page.send(&format!("PUT {path}"), &[], b"").status, 405);
    assert_eq!(page.left(), []);
}

#[test]
fn a_token_that_is_none_of_ours_is_a_plain_page() {
    let page = Page::open();
    let mut forged = path("news", "ann@example.net");
    let last = if forged.ends_with('a') { 'b' } else { 'a' };
    forged.pop();
    forged.push(last);
    for path in [forged.as_str(), "/u/", "/u/x", "/u/%ff", "/", "/api/inject/v1", "/metrics", "/openapi.json"]
    {
        for (what, body) in [("GET", &b""[..]), ("POST", ONE_CLICK)] {
            let answer = page.send(&format!("{what} {path}"), &[FORM], body);
            assert_eq!(
                (answer.status, answer.field("content-type")),
                (404, Some("text/html; charset=utf-8")),
                "{path}"
            );
            assert!(answer.body.contains("<h1>Not found</h1>"), "{}", answer.body);
        }
    }
    assert_eq!(page.left(), []);
}

#[test]
fn what_cannot_be_written_down_is_not_promised() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    page.memory.is_broken.store(true, Ordering::Relaxed);
    let answer = page.send(&format!("POST {path}"), &[FORM], ONE_CLICK);
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("10")));
    assert!(answer.body.contains("try again"), "{}", answer.body);
    let long = vec![b'x'; 10_000];
    assert_eq!(page.send(&format!("POST {path}"), &[FORM], &long).status, 413);
    assert_eq!(page.left(), []);
}

#[test]
fn a_page_loads_nothing_and_tells_nobody() {
    let (page, path) = (Page::open(), path("news", "ann@example.net"));
    let answer = page.send(&format!("GET {path}"), &[], b"");
    let policy = answer.field("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(answer.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    for outside in ["http:", "https:", "//", "<script", "src="] {
        assert!(!answer.body.contains(outside), "{outside}: {}", answer.body);
    }
}

#[test]
fn nothing_of_list_or_address_becomes_markup() {
    let page = Page::open();
    let path = path("<b>\"news\"", "\"<i>\"@example.net");
    for (what, body) in [("GET", &b""[..]), ("POST", ONE_CLICK)] {
        let answer = page.send(&format!("{what} {path}"), &[FORM], body);
        assert!(!answer.body.contains("<b>") && !answer.body.contains("<i>"), "{}", answer.body);
        assert!(answer.body.contains("&lt;b&gt;&quot;news&quot;"), "{}", answer.body);
    }
}

// ---- people ----

/// Screenshots are kept where somebody wants to see them.
fn keep(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("RINGPOST_SCREENSHOTS") {
        browser.screenshot(&PathBuf::from(folder).join(name));
    }
}

#[test]
fn a_person_leaves_by_one_button_on_a_phone_without_scripts() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::open();
    let url = format!("http://{}{}", page.address, path("news", "ann@example.net"));
    browser.forbid_scripts();
    browser.be_a_phone();
    browser.open(&url, "<h1>Unsubscribe</h1>");
    keep(&mut browser, "ask-phone.png");
    let (window, content) = browser.widths();
    assert!(content <= window, "no scrolling to the side: {content} in {window}");
    let spoken = browser.spoken();
    let said = |role: &str| {
        spoken.iter().filter(|(own, _)| own == role).map(|(_, name)| name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((said("button"), said("heading")), (vec!["Unsubscribe"], vec!["Unsubscribe"]), "{spoken:?}");
    assert_eq!(page.left(), [], "looking is not leaving");
    browser.press("button");
    browser.wait_for("<h1>Unsubscribed</h1>");
    keep(&mut browser, "done-phone.png");
    assert!(browser.html().contains("no more mail to <strong>ann@example.net</strong>"));
    assert_eq!((page.left(), browser.url()), (ann(), url), "no redirect");
    assert_eq!(page.ways(), [Way::Page]);
}

#[test]
fn long_names_stay_on_the_screen() {
    let Some(mut browser) = Browser::start() else { return };
    let page = Page::open();
    let address = format!("{}@{}.example", "a".repeat(64), "b".repeat(60));
    browser.be_a_phone();
    browser
        .open(&format!("http://{}{}", page.address, path(&"l".repeat(64), &address)), "<h1>Unsubscribe</h1>");
    keep(&mut browser, "ask-long.png");
    let (window, content) = browser.widths();
    assert!(content <= window, "no scrolling to the side: {content} in {window}");
    browser.open(&format!("http://{}/u/nothing", page.address), "<h1>Not found</h1>");
    keep(&mut browser, "unknown-phone.png");
}
