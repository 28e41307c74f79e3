#!/usr/bin/env python3
"""What a campaign costs: a list comes in by HTTP and every recipient gets his copy from a sink of ours, on loopback.

  bench/campaign.py [plain] [merge] [ed25519] [rsa] [both] [--recipients 1000000] [--runs 3] [--json]

Works:
  plain    one letter for all, a reverse-path each (VERP)
  shared   the same, with DKIM (Ed25519 and RSA-2048): one signature of each for all
  merge    a letter in two parts (text and HTML, quoted-printable) with two fields of each recipient, rendered for each copy
  ed25519  merge, and each copy with its own Ed25519 signature
  rsa      merge, and each copy with its own RSA-2048 signature
  both     merge, and each copy with both

A list of CSV lines goes into a campaign that is paused, so that taking it in and delivering it are measured one after the other:
`injected_per_s` is recipients a second from the first octet of the list to the answer that all are durable, `inject_cpu_us` the
engine's CPU for each; `per_s` and `cpu_us` are deliveries a second and the engine's CPU for each, from the order to go on until the
queue is empty; `peak_rss_bytes` is the engine's largest memory over all of it. CPU is the ringpost process's own user and system
time, kernel workers of its rings included. The engine runs on the CPUs of --cpus (default: the first; client and sink need the
others). A row is the median with the smallest and largest of its runs; compare only what ran in the same run. Programs come from
target/release unless --ringpost and --loadgen name others. Sends to loopback only.
"""
import http.client, json, os, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Engine, Program, known, measure, parser, tell

CONFIG = """host_name = "relay.bench.test"
queue = "{folder}/queue"
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
cpus = [{cpus}]
[storage]
free_min = 0
[intake]
backlog_max = 10000000
[api]
listen = ["127.0.0.1:0"]
[delivery]
window_max = {window}
connections_max = 100
[routes]
"*" = "{sink}"
{dkim}
"""

KEYS = {"plain": [], "merge": [], "shared": ["ed25519", "rsa"], "ed25519": ["ed25519"], "rsa": ["rsa"], "both": ["ed25519", "rsa"]}
DOMAINS = 100
LINES = 20_000  # of the list in a piece


def letter(size, is_merged):
    """A letter of about `size` octets; merged: multipart/alternative with two fields in header, text and HTML."""
    who, town = ("{{first_name|default(\"reader\")}}", "{{town}}") if is_merged else ("reader", "Ulm")
    line = "All work and no play makes a newsletter of a certain length, which nobody reads.\n"
    if not is_merged:
        return f"From: News <news@bench.test>\nSubject: Dear {who}\n\nHello {who} of {town}!\n" + line * (size // len(line))
    half = line * (size // 2 // len(line))
    part = "--b\nContent-Type: text/{}; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{}\n"
    return (f"From: News <news@bench.test>\nTo: {{{{email}}}}\nSubject: Dear {who}\nMIME-Version: 1.0\n"
            "Content-Type: multipart/alternative; boundary=b\n\n"
            + part.format("plain", f"Hello {who} of {town}!\n{half}") + part.format("html", f"<p>Hello <b>{who}</b> of {town}!</p>\n{half}")
            + "--b--\n")


def lines(count):
    """The list, in pieces."""
    yield b"email,first_name,town\n"
    for first in range(0, count, LINES):
        numbers = range(first, min(first + LINES, count))
        yield "".join(f"u{n:07}@d{n % DOMAINS:03}.test,Name{n % 1000},Town{n % 300}\n" for n in numbers).encode()


def ask(api, method, path, body=None, kind="application/json"):
    """The answer's JSON; anything but 2xx ends the program."""
    host = http.client.HTTPConnection(api, timeout=900)
    host.request(method, path, body, {"Content-Type": kind}, encode_chunked=not isinstance(body, (str, bytes, type(None))))
    answer = host.getresponse()
    text = answer.read()
    if answer.status // 100 != 2:
        sys.exit(f"{method} {path}: {answer.status} {text[:500]}")
    return json.loads(text)


def dkim(a, folder, kinds):
    """The configuration's table, its keys made."""
    if not kinds:
        return ""
    selectors = []
    for kind in kinds:
        path = os.path.join(folder, kind)
        command = [a.ringpost, "dkim", "keygen", "--domain", "bench.test", "--selector", kind, "--type", kind, "--out", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        selectors.append(f'{{ selector = "{kind}", key = "{path}" }}')
    return f'[dkim.domains."bench.test"]\nselectors = [{", ".join(selectors)}]\n'


def campaign(a, name):
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        sink = Program([a.loadgen, "sink", "127.0.0.1:0", "--stop-on-stdin-eof"])
        fields = dict(folder=folder, cpus=a.cpus, window=a.window, sink=sink.words[1], dkim=dkim(a, folder, KEYS[name]))
        engine = Engine(a, folder, CONFIG.format(**fields))
        try:
            return run(a, engine, engine.words[5], name not in ("plain", "shared"))
        finally:
            engine.kill()
            sink.stop()


def run(a, engine, api, is_merged):
    new = dict(envelope_sender="news@bench.test", verp=True, paused=True, content=letter(a.size, is_merged))
    ask(api, "PUT", "/api/campaigns/bench", json.dumps(new))
    before, began = engine.cpu(), time.monotonic()
    tally = ask(api, "POST", "/api/campaigns/bench/recipients", lines(a.recipients), "text/csv")
    injected, inject_cpu = time.monotonic() - began, engine.cpu() - before
    if tally["added"] != a.recipients:
        sys.exit(f"not all were added: {tally}")
    before, began = engine.cpu(), time.monotonic()
    ask(api, "POST", "/api/campaigns/bench/resume")
    engine.wait(lambda now: now["delivered_total"] >= a.recipients and now["queued_messages"] == 0, "an empty queue", 1800)
    delivered, cpu = time.monotonic() - began, engine.cpu() - before
    shown = ask(api, "GET", "/api/campaigns/bench")
    if shown["delivered"] != a.recipients:
        sys.exit(f"not all were delivered: {shown}")
    return dict(injected_per_s=a.recipients / injected, inject_cpu_us=inject_cpu / a.recipients * 1e6,
                per_s=a.recipients / delivered, cpu_us=cpu / a.recipients * 1e6, peak_rss_bytes=engine.rss())


def main():
    p = parser(__doc__, KEYS, runs=3)
    p.add_argument("--recipients", type=int, default=1_000_000)
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--window", type=int, default=8)
    a = p.parse_args()
    known(p, a.works, KEYS)
    for name in a.works or KEYS:
        tell(a, measure(a, name, lambda: campaign(a, name)))


if __name__ == "__main__":
    main()
