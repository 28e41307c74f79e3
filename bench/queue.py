#!/usr/bin/env python3
"""What a full queue costs: restart, slowdown, memory. One engine on loopback, a sink of ours, a generator of ours.

  bench/queue.py [restart-list] [restart-singles] [slowdown] [memory] [steering] [--count 1000000]

  restart-list     one list message owed to --count recipients: from the start of the program to its first delivery
  restart-singles  the same with --count single messages of --size octets
  slowdown         relay of single messages (in and out), with an empty queue and with --count deferred messages
  memory           resident bytes per owed recipient (lists of 1,000,000, each recipient deferred on its own, ten times
                   --count) and per queued message (--count singles)
  steering         hold, release, retry, list and delete of --count deferred messages: seconds, growth of the resident set, and how
                   long 500 messages a second to another domain take meanwhile, from arrival to the peer's reply

Mail is queued towards a peer that takes connections and says nothing; then the process is killed with SIGKILL, and
started again: first with that peer still there ("first": nothing of the queue's is in the page cache but its journals),
then with a sink ("second": warm). Programs come from target/release unless --ringpost and --loadgen name others.
"""
import json, os, socket, statistics, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lib
from lib import Program, parser, source

CONFIG = """host_name = "queue.bench.test"
queue = "{folder}/queue"
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
cpus = [{cpus}]
[storage]
free_min = 0
[intake]
recipients_max = 2000000
message_size_max = 536870912
memory_max = 2147483648
[retry]
quadratic_secs = 20000
[delivery]
connections_max = 50
[routes]
{routes}
"""


class Hole:
    """Takes connections and never greets."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]


class Engine(lib.Engine):
    def __init__(self, a, folder, routes, more=""):
        lines = "\n".join(f'"{domain}" = "{host}"' for domain, host in routes.items())
        super().__init__(a, folder, more + CONFIG.format(folder=folder, cpus=a.cpus, routes=lines))

    def first_delivery(self):
        while self.metric("delivered_total") == 0:
            if time.monotonic() - self.began > 60:
                sys.exit("no delivery within a minute")
            time.sleep(0.001)
        return time.monotonic() - self.began


def sink(a, *options):
    return Program([a.loadgen, "sink", "127.0.0.1:0", "--stop-on-stdin-eof", *options])


def send(a, engine, messages, recipients, size, *options):
    return source(a, engine.address, messages, recipients, size, *options)


def restart(a, messages, recipients, size):
    hole = Hole()
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        engine = Engine(a, folder, {"*": hole.address})
        send(a, engine, messages, recipients, size, "--sessions", "1" if messages == 1 else "50", "--domain-count", "20")
        engine.kill()
        first = Engine(a, folder, {"*": hole.address})
        owed, row = first.metric("queued_recipients"), {}
        first.kill()
        if owed != messages * recipients:
            sys.exit(f"{owed} owed after the restart")
        to = sink(a)
        second = Engine(a, folder, {"*": to.words[1]})
        delivered = second.first_delivery()
        row = dict(first_ready_s=first.ready, second_ready_s=second.ready, second_first_delivery_s=delivered,
                   peak_rss_bytes=second.rss())
        second.kill()
        to.stop()
        return row


def relay(a, engine):
    before, cpu = engine.metric("delivered_total"), engine.cpu()
    began = time.monotonic()
    send(a, engine, a.messages, 1, 4096, "--sessions", "50", "--domain-pattern", "live{}.test")
    engine.wait(lambda now: now["delivered_total"] >= before + a.messages, "the relayed mail")
    wall = time.monotonic() - began
    return dict(per_s=a.messages / wall, cpu_us=(engine.cpu() - cpu) / a.messages * 1e6)


def slowdown(a):
    to, deferring = sink(a), sink(a, "--fault", "rcpt=450:1.0")
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        engine = Engine(a, folder, {"live1.test": to.words[1], "*": deferring.words[1]})
        relay(a, engine)
        empty = [relay(a, engine) for _ in range(a.runs)]
        send(a, engine, a.count, 1, a.size, "--sessions", "50", "--domain-count", "20")
        engine.wait(lambda now: now["deferred_recipients"] >= a.count, "the deferrals")
        time.sleep(2)
        full = [relay(a, engine) for _ in range(a.runs)]
        if engine.metric("deferred_recipients") < a.count:
            sys.exit("some were tried again meanwhile")
        row = {}
        for key in ("per_s", "cpu_us"):
            e, f = (statistics.median(run[key] for run in runs) for runs in (empty, full))
            row |= {f"empty_{key}": e, f"full_{key}": f, f"ratio_{key}": f / e}
        engine.kill(), to.stop(), deferring.stop()
        return row


def memory(a):
    deferring = sink(a, "--fault", "rcpt=450:1.0")
    row = {}
    for name, messages, recipients, size in (("message", a.count, 1, 512), ("recipient", 10, a.count, 1024)):
        with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
            engine = Engine(a, folder, {"*": deferring.words[1]})
            options = ["--sessions", "50"] if messages > 100 else []
            # What is cached of messages is full, and belongs to no queue.
            before = 0
            for _ in range(1 if messages > 100 else messages):
                send(a, engine, messages if messages > 100 else 1, recipients, size, "--domain-count", "20", *options)
            count = messages * recipients
            engine.wait(lambda now: now["deferred_recipients"] >= count, "the deferrals", 1800)
            time.sleep(3)
            rss = engine.rss_now()
            engine.kill()
            again = Engine(a, folder, {"*": deferring.words[1]})
            time.sleep(2)
            row |= {f"{name}s": count, f"rss_per_{name}": rss / count, f"rss_per_{name}_after_restart": again.rss_now() / count,
                    f"restart_ready_s_{name}s": again.ready, f"restart_peak_per_{name}": again.rss() / count}
            again.kill()
    deferring.stop()
    return row


def steering(a):
    to, deferring = sink(a), sink(a, "--fault", "rcpt=450:1.0")
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        log = os.path.join(folder, "delivery.log")
        engine = Engine(a, folder, {"live1.test": to.words[1], "*": deferring.words[1]}, f'delivery_log = "{log}"\n')
        send(a, engine, a.count, 1, a.size, "--sessions", "50", "--domain-count", "20")
        engine.wait(lambda now: now["deferred_recipients"] >= a.count, "the deferrals")
        live = subprocess.Popen([a.loadgen, "source", engine.address, "--messages", "100000", "--rate", "500", "--sessions", "20",
                                 "--size", "4096", "--domain-pattern", "live{}.test"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(3)
        row, where = {}, ["--where", "domain=d*.test"]
        steps = dict(none=None, list=["list", "--json"], hold=["hold", "--yes", *where], release=["release", "--yes", *where],
                     hold_again=["hold", "--yes", *where], delete=["delete", "--yes", *where])
        for name, command in steps.items():
            if name == "hold_again":
                engine.wait(lambda now: now["deferred_recipients"] >= a.count * 0.99, "the deferrals after the release")
            at, rss = os.path.getsize(log), engine.rss_now()
            open(f"/proc/{engine.child.pid}/clear_refs", "w").write("5")
            began = time.monotonic()
            if command:
                config = os.path.join(folder, "ringpost.toml")
                subprocess.run([a.ringpost, "queue", *command, "--config", config], check=True, stdout=subprocess.DEVNULL)
            took = time.monotonic() - began
            time.sleep(3)
            with open(log) as f:
                f.seek(at)
                f.readline()
                lines = [json.loads(line) for line in f.readlines()[:-1]]
            delays = sorted(line["delay_ms"] for line in lines if line["domain"] == "live1.test")
            row[name] = dict(s=took, rss_growth_mib=(engine.rss() - rss) / 2**20, delay_p50_ms=delays[len(delays) // 2],
                             delay_p99_ms=delays[len(delays) * 99 // 100], delay_max_ms=delays[-1])
        live.kill(), engine.kill(), to.stop(), deferring.stop()
        return row


WORKS = {"restart-list": lambda a: restart(a, 1, a.count, a.size), "restart-singles": lambda a: restart(a, a.count, 1, a.size),
         "slowdown": slowdown, "memory": memory, "steering": steering}


def main():
    p = parser(__doc__, WORKS, cpus="0,1")
    p.add_argument("--count", type=int, default=1_000_000)
    p.add_argument("--size", type=int, default=2048)
    p.add_argument("--messages", type=int, default=50_000, help="of each relay run")
    a = p.parse_args()
    for name in a.works or WORKS:
        print(json.dumps(dict(work=name, count=a.count, load=os.getloadavg()[0], **WORKS[name](a))), flush=True)


if __name__ == "__main__":
    main()
