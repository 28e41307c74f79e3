#!/usr/bin/env python3
"""What taking mail in costs, and what the others of the internet cost besides. One ringpost on loopback, sources of ours.

  bench/ingress.py [accept] [serial] [idle] [beside] [--kinds plain,tls] [--runs 3] [--quick] [--json]

  accept  messages per second and CPU per message: 4 KiB and 64 KiB; 1, 10, 50 and 1,000 sessions; sessions kept, and one for
          each message; in plain text and under TLS (with tickets). A row for each
  serial  a client that sends one message after the other: milliseconds from the end of the content to its 250 (one group
          commit), and for comparison one write of 4 KiB and its fdatasync in the same folder
  idle    --idle connections that have greeted and say nothing: resident bytes of each, all alive at the end or not, and the
          rate and the CPU of 50 sessions beside them against the same without them
  beside  a steady client (--rate messages a second, 10 sessions), milliseconds from when each was due to its 250: alone, beside
          --drips clients that say an octet every --every milliseconds (of a command, of DATA), beside a flood of connections
          from --sources addresses, beside garbage. What became of those: cut, turned away, refused

Whatever is taken is held (`hold = true`) and not delivered; every message is synced before its 250. CPU is the ringpost
process's own user and system time, kernel workers of its rings included, divided by messages. The engine runs on the CPUs
of --cpus (default: the first), all others on the rest. What was under TLS is not believed but counted by the source: a run in which it
saw no handshake ends with an error. A row is the median with the smallest and largest of its runs; only what ran in the same
run compares. `tls` is STARTTLS; `implicit` is TLS before the greeting. They need openssl for a certificate. Programs come from
target/release unless --ringpost and --loadgen name others. Sends to loopback only.
"""
import json, os, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Engine, Program, known, measure, parser, pinned, raise_descriptors, source, tell

CONFIG = """host_name = "ingress.bench.test"
queue = "{folder}/queue"
http = "127.0.0.1:0"
cpus = [{cpus}]
{listen}
[storage]
free_min = 0
[intake]
sessions_max = {sessions_max}
[routes]
"*" = {{ hold = true }}
{tables}
"""

LISTENER = """[listeners.bench]
addresses = ["127.0.0.1:0"]
tls = "{mode}"
[[certificates]]
names = ["ingress.bench.test"]
chain = "{folder}/chain.pem"
key = "{folder}/key.pem"
"""

# As the engine's listener says it, and as loadgen does.
KINDS = {"plain": None, "tls": ("offer", ["--tls", "starttls"]), "implicit": ("implicit", ["--tls", "implicit"])}
SIZES = {"4k": 4096, "64k": 65536}
ROOM = 2000  # sessions besides the idle ones


class Ingress:
    """An engine that takes mail in and keeps it."""

    def __init__(self, a, kind):
        self.a, self.kind = a, kind
        self.folder = tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder)
        folder, listen, tables = self.folder.name, 'listen = ["127.0.0.1:0"]', ""
        if KINDS[kind]:
            certify(folder)
            listen, tables = "", LISTENER.format(mode=KINDS[kind][0], folder=folder)
        self.options = KINDS[kind][1] if KINDS[kind] else []
        fields = dict(folder=folder, cpus=a.cpus, listen=listen, tables=tables, sessions_max=a.idle + ROOM)
        self.engine = Engine(a, folder, CONFIG.format(**fields))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.kill()
        self.folder.cleanup()

    def send(self, messages, size, *options):
        """The source's report, with the engine's CPU per message."""
        before = self.engine.cpu()
        report = source(self.a, self.engine.address, messages, 1, size, *self.options, *options, cpus=self.a.others)
        time.sleep(0.2)
        if self.options and report["tls_full"] == 0:
            sys.exit("no handshake: this engine does not speak TLS here, or was told not to")
        return report | dict(cpu_us=(self.engine.cpu() - before) / messages * 1e6)

    def press(self, what, *options):
        """The command line of ill-behaved clients."""
        return [self.a.loadgen, "press", what, self.engine.address, "--sources", f"127.0.0.1-{self.a.sources}", "--json", *options]

    def crowd(self, what, *options):
        """They are all there once this returns."""
        return Program(self.press(what, "--hold", "3600", "--stop-on-stdin-eof", *options), "holding", self.a.others)


def certify(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=ingress.bench.test", "-addext", "subjectAltName=DNS:ingress.bench.test",
               "-keyout", f"{folder}/key.pem", "-out", f"{folder}/chain.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def accepted(a, kind, size, sessions, connection):
    messages = a.messages // (4 if SIZES[size] > 4096 else 1) // (10 if sessions == 1 else 1)
    messages //= 4 if connection == "per-message" and kind != "plain" else 1
    messages = max(messages, 2 * sessions)
    with Ingress(a, kind) as ingress:
        if sessions < 1000:
            ingress.send(max(sessions, 50), SIZES[size], "--sessions", str(sessions))  # buffers are there afterwards
        report = ingress.send(messages, SIZES[size], "--sessions", str(sessions), "--connection", connection)
    figures = dict(per_s=report["messages_per_sec"], cpu_us=report["cpu_us"],
                   p50_ms=report["commit"]["p50_us"] / 1e3, p99_ms=report["commit"]["p99_us"] / 1e3)
    if kind != "plain":
        figures["resumed_share"] = report["tls_resumed"] / (report["tls_full"] + report["tls_resumed"])
    return figures


def accept(a):
    for kind in a.kinds:
        for size in a.sizes:
            for connection in ("kept", "per-message"):
                for sessions in a.sessions:
                    name = f"accept {kind} {size} {connection} {sessions}"
                    yield measure(a, name, lambda: accepted(a, kind, size, sessions, connection))


def sync_ms(folder, count=200):
    """One write of 4 KiB and its sync, over what is there already, as a segment is."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        os.pwrite(file.fileno(), bytes(4096 * count), 0)
        os.fsync(file.fileno())
        times = []
        for index in range(count):
            began = time.monotonic()
            os.pwrite(file.fileno(), b"x" * 4096, index * 4096)
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - began) * 1e3)
    return sorted(times)[count // 2]


def serial_once(a, kind):
    with Ingress(a, kind) as ingress:
        ingress.send(50, 4096)
        report = ingress.send(a.messages // 10, 4096)
        return dict(p50_ms=report["commit"]["p50_us"] / 1e3, p99_ms=report["commit"]["p99_us"] / 1e3,
                    per_s=report["messages_per_sec"], cpu_us=report["cpu_us"], fdatasync_p50_ms=sync_ms(ingress.folder.name))


def serial(a):
    for kind in a.kinds:
        yield measure(a, f"serial {kind}", lambda: serial_once(a, kind))


def idle_once(a, kind):
    with Ingress(a, kind) as ingress:
        engine, send = ingress.engine, lambda: ingress.send(a.messages, 4096, "--sessions", "50")
        before = engine.rss_now()  # what traffic leaves behind, and gives back later, would hide the connections
        crowd = ingress.crowd("idle", "--connections", str(a.idle), *ingress.options)
        opened = int(crowd.words[1])
        time.sleep(2)
        rss, cpu = engine.rss_now() - before, engine.cpu()
        time.sleep(2)
        cpu = engine.cpu() - cpu
        send()  # buffers are there afterwards
        beside, seen = send(), crowd.report()
        alone = send()
    return dict(opened=opened, alive=seen["alive"], rss_per_connection=rss / max(opened, 1), idle_cpu_share=cpu / 2,
                alone_per_s=alone["messages_per_sec"], beside_per_s=beside["messages_per_sec"],
                ratio_per_s=beside["messages_per_sec"] / alone["messages_per_sec"],
                alone_cpu_us=alone["cpu_us"], beside_cpu_us=beside["cpu_us"], opened_s=seen["opened_secs"])


def idle(a):
    for kind in a.kinds:
        yield measure(a, f"idle {kind}", lambda: idle_once(a, kind))


def steady(a, ingress):
    """The steady client's figures, and the engine's CPU meanwhile as a share of one."""
    began, cpu = time.monotonic(), ingress.engine.cpu()
    report = ingress.send(int(a.rate * a.seconds), 4096, "--sessions", "10", "--rate", str(a.rate))
    share = (ingress.engine.cpu() - cpu) / (time.monotonic() - began)
    return dict(p50_ms=report["since_due"]["p50_us"] / 1e3, p99_ms=report["since_due"]["p99_us"] / 1e3,
                max_ms=report["since_due"]["max_us"] / 1e3, engine_cpu_share=share)


def beside_drip(of):
    def run(a, ingress):
        crowd = ingress.crowd("drip", "--of", of, "--connections", str(a.drips), "--every", str(a.every), *ingress.options)
        figures, seen = steady(a, ingress), crowd.report()
        spread = seen["cut_after_secs"] or {}
        return figures | dict(drips=int(crowd.words[1]), cut=seen["cut"], cut_after_p50_s=spread.get("p50", 0.0))
    return run


def at_once(a, command, ingress):
    """The steady client's figures, and the report of a command that ends by itself."""
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(a.others))
    figures = steady(a, ingress)
    said = other.communicate()[0]
    return figures, json.loads(said or sys.exit(f"nothing was said by {' '.join(command)}"))


def beside_flood(a, ingress):
    command = ingress.press("flood", "--for", str(a.seconds), "--workers", "64")
    figures, seen = at_once(a, command, ingress)
    rate = lambda key: seen[key] / seen["elapsed_secs"]
    return figures | dict(flood_greeted_per_s=rate("accepted"), flood_turned_away_per_s=rate("turned_away"),
                          flood_failed_per_s=rate("failed"), flood_greeting_p99_ms=seen["greeting"]["p99_us"] / 1e3)


def beside_garbage(a, ingress):
    figures, seen = at_once(a, ingress.press("garbage", "--connections", "1000"), ingress)
    if seen["not_smtp"] or not seen["still_serves"]:
        sys.exit(f"garbage was answered by it: {seen}")
    return figures | dict(garbage_octets=seen["octets_sent"], garbage_replies=sum(seen["replies"].values()))


COMPANIES = {"nobody": steady, "command drips": beside_drip("command"), "data drips": beside_drip("data"),
             "a flood": beside_flood, "garbage": beside_garbage}


def beside_once(a, kind, company):
    with Ingress(a, kind) as ingress:
        ingress.send(1000, 4096, "--sessions", "10")
        return COMPANIES[company](a, ingress)


def beside(a):
    for kind in a.kinds:
        for company in COMPANIES:
            yield measure(a, f"beside {kind} {company}", lambda: beside_once(a, kind, company))


WORKS = {"accept": accept, "serial": serial, "idle": idle, "beside": beside}


def main():
    p = parser(__doc__, WORKS, runs=3)
    p.add_argument("--kinds", default="plain,tls", help="some of plain, tls, implicit")
    p.add_argument("--sizes", default="4k,64k", help="of accept")
    p.add_argument("--sessions", default="1,10,50,1000", help="of accept")
    p.add_argument("--messages", type=int, default=20000, help="of 4 KiB; fewer of 64 KiB, under new handshakes, by one session")
    p.add_argument("--idle", type=int, default=10000)
    p.add_argument("--drips", type=int, default=1000)
    p.add_argument("--every", type=int, default=1000, help="milliseconds between octets of a drip")
    p.add_argument("--sources", type=int, default=200, help="addresses that ill-behaved clients come from")
    p.add_argument("--rate", type=float, default=500, help="messages a second of the steady client")
    p.add_argument("--seconds", type=int, default=20, help="that the steady client lasts")
    p.add_argument("--quick", action="store_true", help="a tenth of everything, once: whether all of it works, not what it costs")
    a = p.parse_args()
    if a.quick:
        a.runs, a.seconds = 1, max(a.seconds // 10, 2)
        a.messages, a.idle, a.drips = a.messages // 10, a.idle // 10, a.drips // 10
    a.kinds, a.sizes, sessions = a.kinds.split(","), a.sizes.split(","), a.sessions.split(",")
    known(p, a.works, WORKS), known(p, a.kinds, KINDS), known(p, a.sizes, SIZES)
    a.sessions = [int(count) for count in sessions]
    own = {int(cpu) for cpu in a.cpus.split(",")}
    a.others = os.sched_getaffinity(0) - own or os.sched_getaffinity(0)
    raise_descriptors()
    for name in a.works or WORKS:
        for row in WORKS[name](a):
            tell(a, row)


if __name__ == "__main__":
    main()
