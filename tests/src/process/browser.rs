//! Chromium without a window, steered over its debugging pipe (the Chrome DevTools Protocol, JSON with a NUL behind each
//! message). What it does is what a person does: it opens a page and presses a button where that is on the screen.

use super::daemon::Own;
use super::peer::peer;
use super::setup::temporary_folder;
use super::wait::{self, PATIENCE};
use base64::Engine as _;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use tempfile::TempDir;

/// See the module.
#[derive(Debug)]
pub struct Browser {
    _child: Own,
    _folder: TempDir,
    orders: File,
    answers: Receiver<Value>,
    next: u64,
    session: String,
}

/// No questions at the start, nothing asked of the network but what a test asks for.
const OPTIONS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "about:blank",
];

impl Browser {
    /// `None` if Chromium is not installed.
    pub fn start() -> Option<Browser> {
        let chromium = peer("chromium")?;
        let folder = temporary_folder();
        let [orders, answers] = ["orders", "answers"].map(|name| folder.path().join(name));
        for pipe in [&orders, &answers] {
            wait::succeed(Command::new("mkfifo").arg(pipe), PATIENCE);
        }
        // It reads descriptor 3 and writes 4.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"orders=$1; answers=$2; shift 2; exec "$@" 3<"$orders" 4>"$answers""#, "sh"]);
        shell.arg(&orders).arg(&answers).arg(chromium.get_program()).args(OPTIONS);
        shell.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        let spawned = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = Own(spawned.expect("a shell starts"));
        let orders = File::options().write(true).open(orders).expect("the shell opens it");
        let answers = read_answers(File::open(answers).expect("the shell opens it"));
        let mut browser =
            Browser { _child: child, _folder: folder, orders, answers, next: 0, session: String::new() };
        browser.attach();
        Some(browser)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let id = target["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({ "targetId": id, "flatten": true }));
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "DOM.enable", "Accessibility.enable"] {
            self.call(domain, json!({}));
        }
    }

    /// What the protocol calls a command, and its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The error is what the browser says of it.
    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let mut order = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).expect("the browser reads");
        loop {
            let answer =
                self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {order}"));
            if answer["id"] == json!(self.next) {
                return match answer.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(answer["result"].clone()),
                };
            }
        }
    }

    /// Pages may run no scripts from now on.
    pub fn forbid_scripts(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// The screen of a small phone.
    pub fn be_a_phone(&mut self) {
        let screen = json!({ "width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": true });
        self.call("Emulation.setDeviceMetricsOverride", screen);
    }

    /// Goes there, and returns when `expected` is in the page.
    pub fn open(&mut self, url: &str, expected: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        self.wait_for(expected);
    }

    pub fn wait_for(&mut self, expected: &str) {
        wait::until(&format!("{expected:?} in the page"), PATIENCE, || self.html().contains(expected));
    }

    fn root(&mut self) -> Value {
        self.call("DOM.getDocument", json!({ "depth": 0 }))["root"]["nodeId"].clone()
    }

    /// Empty while one page gives way to the next, whose root is another.
    pub fn html(&mut self) -> String {
        let root = self.root();
        let found = self.ask("DOM.getOuterHTML", json!({ "nodeId": root })).unwrap_or_default();
        found["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// Where it went in the end.
    pub fn url(&mut self) -> String {
        let history = self.call("Page.getNavigationHistory", json!({}));
        let at = usize::try_from(history["currentIndex"].as_u64().expect("a number")).expect("small");
        history["entries"][at]["url"].as_str().expect("text").to_owned()
    }

    /// Presses the element where it is on the screen.
    pub fn press(&mut self, selector: &str) {
        let root = self.root();
        let found = self.call("DOM.querySelector", json!({ "nodeId": root, "selector": selector }));
        let model = self.call("DOM.getBoxModel", json!({ "nodeId": found["nodeId"] }));
        let corner = |at: usize| model["model"]["content"][at].as_f64().expect("a number");
        let (x, y) = ((corner(0) + corner(4)) / 2.0, (corner(1) + corner(5)) / 2.0);
        // What is pressed before the page was first painted is lost, and a picture waits for that.
        self.call("Page.captureScreenshot", json!({}));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Width of the window and of the page in it.
    pub fn widths(&mut self) -> (f64, f64) {
        let metrics = self.call("Page.getLayoutMetrics", json!({}));
        let of = |name: &str, key: &str| metrics[name][key].as_f64().expect("a number");
        (of("cssLayoutViewport", "clientWidth"), of("cssContentSize", "width"))
    }

    /// Role and name of everything that a screen reader would find.
    pub fn spoken(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().expect("a list");
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        nodes.iter().map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    pub fn screenshot(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = shot["data"].as_str().expect("base64");
        let png = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(file, png).expect("the folder is ours");
    }
}

fn read_answers(pipe: File) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else { return };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
