#!/usr/bin/env python3
"""What protection costs: TLS against plain text, new handshakes, and very many domains. One ringpost on loopback.

  bench/tls.py [fan] [handshakes] [domains] [--runs 5] [--json]

  fan         a VERP list of --recipients over connections that are reused, in plain text and under TLS 1.3, one after the
              other in each run: microseconds of CPU per delivery, and their ratio
  handshakes  the same list (--connections of it) with one message per connection: plain, TLS with resumption, TLS without:
              connections per second and CPU per connection
  domains     --domains domains with one recipient each, by a name server of ours (MX and address each), spread over a
              hundred addresses of one sink: memory, seconds from the start of the injection to the first and the last delivery, most
              connections at a time. Once with plain text, once under TLS

CPU is the ringpost process's own user and system time, kernel workers of its rings included, from the start of the injection
until everything is delivered, divided by deliveries. The engine runs on the CPUs of --cpus (default: the first; sink and
generator need the others). What was under TLS is not believed but asked of the sink: a run in which it saw no handshake ends
with an error. A row is the median with the smallest and largest of its runs; only what ran in the same run compares.
Programs come from target/release unless --ringpost and --loadgen name others. Sends to loopback only.
"""
import multiprocessing, os, socket, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Engine, Program, known, measure, parser, raise_descriptors, source, tell

CONFIG = """host_name = "tls.bench.test"
queue = "{folder}/queue"
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
cpus = [{cpus}]
[storage]
free_min = 0
[intake]
recipients_max = 2000000
[tls]
mode = "{mode}"
mta_sts = false
[delivery]
connections_max = {connections_max}
{delivery}
"""


def sink_at(a, address, *options):
    return Program([a.loadgen, "sink", address, "--stop-on-stdin-eof", "--connections-max", "200000", *options])


def start(a, folder, mode, delivery, routes="", connections_max=50):
    fields = dict(folder=folder, cpus=a.cpus, mode=mode, delivery=delivery, connections_max=connections_max)
    return Engine(a, folder, CONFIG.format(**fields) + routes)


def wait(engine, count):
    return engine.wait(lambda now: now["delivered_total"] >= count and now["queued_messages"] == 0, "an empty queue")


def inject(a, engine, recipients, *options):
    source(a, engine.address, 1, recipients, a.size, "--xverp", *options)


TLS = {"plain": [], "tls": ["--tls", "offer", "--tls-version", "1.3"],
       "tls-full": ["--tls", "offer", "--tls-version", "1.3", "--no-resumption"]}


def send_list(a, kind, recipients, delivery, connections_max=50):
    """One list to one sink. The figures, and what the sink saw."""
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        sink = sink_at(a, "127.0.0.1:0", *TLS[kind])
        routes = f'[routes]\n"*" = "{sink.words[1]}"\n'
        engine = start(a, folder, "never" if kind == "plain" else "may", delivery, routes, connections_max)
        cpu, began = engine.cpu(), time.monotonic()
        inject(a, engine, recipients, "--domain-count", "20")
        wait(engine, recipients)
        wall = time.monotonic() - began
        time.sleep(0.5)
        cpu, rss = engine.cpu() - cpu, engine.rss()
        engine.stop()
        seen = sink.report()
    check(kind, seen, recipients)
    return dict(cpu_us=cpu / recipients * 1e6, per_s=recipients / wall, peak_rss_bytes=rss), seen


def check(kind, seen, recipients):
    if seen["recipients"] < recipients:
        sys.exit(f"the sink took {seen['recipients']} of {recipients}")
    if kind != "plain" and seen["tls_handshakes"] == 0:
        sys.exit("the sink offered TLS and saw no handshake: this engine does not speak it, or was told not to")
    if kind == "plain" and seen["tls_handshakes"]:
        sys.exit("handshakes in a run that was to be plain")


def fan(a):
    rows = {kind: send_list(a, kind, a.recipients, f"window_max = {a.window}") for kind in a.kinds if kind != "tls-full"}
    result = {f"{kind}_{key}": value for kind, (figures, _) in rows.items() for key, value in figures.items()}
    if "tls" in rows:
        result["tls_handshakes"] = rows["tls"][1]["tls_handshakes"]
        if "plain" in rows:
            result["ratio_cpu"] = result["tls_cpu_us"] / result["plain_cpu_us"]
    return result


def handshakes(a):
    result = {}
    for kind in a.kinds:
        figures, seen = send_list(a, kind, a.connections, "messages_per_connection = 1\nwindow_max = 1")
        name = kind.replace("-", "_")
        result |= {f"{name}_cpu_us": figures["cpu_us"], f"{name}_connections_per_s": seen["connections"] * figures["per_s"] / a.connections,
                   f"{name}_sink_cpu_us": seen["cpu_secs"] / a.connections * 1e6}
        if kind != "plain":
            result[f"{name}_resumed_share"] = seen["tls_resumed"] / seen["tls_handshakes"]
    return result


A, MX = 1, 15


def answer(query):
    """The answer to one question: MX mx.NAME for every name but those; d…07 and mx.d…07 are at the eighth address of the sink."""
    end = query.index(0, 12)
    question, kind = query[12:end + 5], int.from_bytes(query[end + 1:end + 3], "big")
    name = query[12:end].lower()
    is_host = name.startswith(b"\x02mx")
    head = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + (300).to_bytes(4, "big")
    label = name[3:] if is_host else name
    last = int(label[label[0] - 1:label[0] + 1])
    if kind == A:
        data = bytes([127, 0, 11, last + 1])
    elif kind == MX and not is_host:
        data = b"\0\x0a" + b"\x02mx\xc0\x0c"
    else:
        data = b""
    record = head + len(data).to_bytes(2, "big") + data if data else b""
    return query[:2] + b"\x85\x80\0\1" + (b"\0\1" if data else b"\0\0") + b"\0\0\0\0" + question + record


def serve_names(sock):
    while True:
        query, peer = sock.recvfrom(1500)
        try:
            sock.sendto(answer(query), peer)
        except (ValueError, IndexError):
            sock.sendto(query[:2] + b"\x85\x83" + query[4:6] + bytes(6) + query[12:], peer)  # NXDOMAIN


class NameServer:
    """A process of ours, so that nothing has to be installed; dnsmasq has no MX for names by pattern."""

    def __init__(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.child = multiprocessing.Process(target=serve_names, args=(sock,), daemon=True)
        self.child.start()

    def stop(self):
        self.child.terminate()
        self.child.join()


def send_domains(a, kind):
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        audit = os.path.join(folder, "received.tsv")
        sink, names = sink_at(a, f"127.0.11.1-100:{port}", "--audit", audit, *TLS[kind]), NameServer()
        delivery = f'port = {port}\nname_servers = ["127.0.0.1:{names.port}"]'
        engine = start(a, folder, "never" if kind == "plain" else "may", delivery)
        before, cpu, began = engine.rss(), engine.cpu(), time.time_ns()
        inject(a, engine, a.domains, "--domain-count", str(a.domains), "--domain-pattern", "d{:06}.test")
        accepted = (time.time_ns() - began) / 1e9
        now = wait(engine, a.domains)
        time.sleep(0.5)
        cpu, rss = engine.cpu() - cpu, engine.rss()
        engine.stop()
        names.stop()
        seen = sink.report()
        check(kind, seen, a.domains)
        times = [int(line.split("\t", 1)[0]) for line in open(audit)]
    return dict(peak_rss_bytes=rss, rss_per_domain=(rss - before) / a.domains, cpu_us=cpu / a.domains * 1e6, accepted_s=accepted,
                first_s=(min(times) - began) / 1e9, last_s=(max(times) - began) / 1e9, connections=seen["connections"],
                connections_open_peak=seen["sources"][0]["connections_open_peak"], deferrals=now.get("deferred_total", 0))


def domains(a):
    rows = {kind: send_domains(a, kind) for kind in a.kinds if kind != "tls-full"}
    return {f"{kind}_{key}": value for kind, figures in rows.items() for key, value in figures.items()}


def main():
    works = {"fan": fan, "handshakes": handshakes, "domains": domains}
    p = parser(__doc__, works)
    p.add_argument("--recipients", type=int, default=200000, help="of the list of fan")
    p.add_argument("--connections", type=int, default=20000, help="deliveries of handshakes, one connection each")
    p.add_argument("--domains", type=int, default=100000)
    p.add_argument("--window", type=int, default=8, help="delivery.window_max of fan")
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--kinds", default="plain,tls,tls-full", help="only some of these")
    a = p.parse_args()
    a.kinds = a.kinds.split(",")
    known(p, a.works, works), known(p, a.kinds, TLS)
    raise_descriptors()
    for name in a.works or works:
        tell(a, measure(a, name, lambda: works[name](a)))


if __name__ == "__main__":
    main()
