#!/usr/bin/env python3
"""What the whole process costs: ringpost between real clients and a sink, on loopback.

  bench/whole.py [--runs 5] [--messages 20000] [--sessions 50] [--json]

Works:
  relay-kept     single messages from kept smtp-source sessions (-d)
  relay-session  a session for each message
  fan-window-1   one VERP list message, one transaction in flight per connection
  fan-open       the same with the window open (8)
  fan-events-1, fan-events
                 the two with an event log

CPU is the ringpost process's own user and system time, kernel workers of its rings included, from the first
connection until the queue is empty; divided by deliveries. The engine runs on the CPUs of --cpus (default: the first;
generator and sink need the others). Every message is synced before its 250. Needs Postfix's
smtp-source. Programs come from target/release unless --ringpost and --loadgen name others. Quote medians, and
compare only what ran in the same run. Sends to loopback only.
"""
import json, os, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Engine, Program, measure, parser


def relay(a, kept, folder):
    sink = Program([a.loadgen, "sink", "127.0.0.1:0", "--stop-on-stdin-eof"])
    engine = Engine(a, folder, f"""host_name = "relay.bench.test"
queue = "{folder}/queue"
listen = ["127.0.0.1:0"]
http = "127.0.0.1:0"
cpus = [{a.cpus}]
[storage]
free_min = 0
[delivery]
connections_max = 100
[routes]
"*" = "{sink.words[1]}"
""")
    before, began = engine.cpu(), time.monotonic()
    command = ["smtp-source", "-s", str(a.sessions), "-m", str(a.messages), "-l", str(a.size), "-f", "a@from.test",
               "-t", "b@d001.test", "-M", "client.test"] + (["-d"] if kept else []) + [engine.address]
    subprocess.run(command, check=True)
    accepted = time.monotonic() - began
    now = engine.wait(lambda now: now["delivered_total"] >= a.messages and now["queued_messages"] == 0, "an empty queue", 300)
    wall = time.monotonic() - began
    time.sleep(0.5)
    cpu = engine.cpu() - before
    result = dict(cpu_us=cpu / a.messages * 1e6, per_s=a.messages / wall, accepted_per_s=a.messages / accepted,
                  peak_rss_bytes=engine.rss(), messages_per_commit=a.messages / now["commits_total"])
    engine.stop()
    sink.stop()
    return result


def fan(a, window, *more):
    command = [a.ringpost, "demo", "--json", *more, "--recipients", str(a.recipients), "--size", str(a.size), "--window", str(window), "--cores", str(len(a.cpus.split(",")))]
    summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if summary["lost"] or summary["duplicated"]:
        sys.exit(f"lost or duplicated: {summary}")
    return dict(cpu_us=summary["cpu_us_per_delivery"], per_s=summary["deliveries_per_s"], peak_rss_bytes=summary["peak_rss_bytes"])


WORKS = {"relay-kept": lambda a: in_folder(a, lambda f: relay(a, True, f)),
         "relay-session": lambda a: in_folder(a, lambda f: relay(a, False, f)),
         "fan-window-1": lambda a: fan(a, 1), "fan-open": lambda a: fan(a, 8),
         "fan-events-1": lambda a: fan(a, 1, "--events"), "fan-events": lambda a: fan(a, 8, "--events")}


def main():
    p = parser(__doc__, WORKS)
    p.add_argument("--messages", type=int, default=20000)
    p.add_argument("--recipients", type=int, default=100000)
    p.add_argument("--sessions", type=int, default=50)
    p.add_argument("--size", type=int, default=4096)
    a = p.parse_args()
    for name in a.works or WORKS:
        row = measure(a, name, lambda: WORKS[name](a))
        if a.json:
            print(json.dumps(row), flush=True)
        else:
            c, r = row["cpu_us"], row["per_s"]
            more = f"  {row['messages_per_commit']['median']:.1f} messages per commit" if "messages_per_commit" in row else ""
            print(f"{name:14} {c['median']:7.2f} µs CPU per delivery ({c['min']:.2f}–{c['max']:.2f})  {r['median']:>9,.0f}/s ({r['min']:,.0f}–{r['max']:,.0f})"
                  f"  peak {row['peak_rss_bytes']['max'] / 2**20:.0f} MiB{more}", flush=True)


def in_folder(a, work):
    with tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder) as folder:
        return work(folder)


if __name__ == "__main__":
    main()
