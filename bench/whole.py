#!/usr/bin/env python3
"""What the whole process costs: ringpost between real clients and a sink, on loopback.

  bench/whole.py [--runs 5] [--messages 20000] [--sessions 50] [--json]

Works:
  relay-kept     single messages from kept smtp-source sessions (-d)
  relay-session  a session for each message
  fan-window-1   one VERP list message, one transaction in flight per connection
  fan-open       the same with the window open (8)

CPU is the ringpost process's own user and system time, kernel workers of its rings included, from the first
connection until the queue is empty; divided by deliveries. The engine runs on the CPUs of --cpus (default: the first;
generator and sink need the others). Every message is synced before its 250. Needs Postfix's
smtp-source. Programs come from target/release unless --ringpost and --loadgen name others. Quote medians, and
compare only what ran in the same run. Sends to loopback only.
"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Program:
    """A child that announces `listening ADDRESS …` on its standard output."""

    def __init__(self, command):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env=dict(os.environ, RUST_LOG="warn"))
        self.words = self.child.stdout.readline().split()
        if not self.words or self.words[0] != "listening":
            sys.exit(f"{command[0]} said {self.words}")

    def cpu(self):
        fields = open(f"/proc/{self.child.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self):
        return next(int(l.split()[1]) for l in open(f"/proc/{self.child.pid}/status") if l.startswith("VmHWM")) * 1024

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)


def metrics(http):
    text = urllib.request.urlopen(f"http://{http}/metrics", timeout=10).read().decode()
    return {l.split()[0].removeprefix("ringpost_"): float(l.split()[1]) for l in text.splitlines() if l[0] != "#"}


def relay(a, kept, folder):
    sink = Program([a.loadgen, "sink", "127.0.0.1:0", "--stop-on-stdin-eof"])
    config = os.path.join(folder, "ringpost.toml")
    with open(config, "w") as f:
        f.write(f"""host_name = "relay.bench.test"
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
    engine = Program([a.ringpost, "serve", "--config", config])
    address, http = engine.words[1], engine.words[3]
    before, began = engine.cpu(), time.monotonic()
    command = ["smtp-source", "-s", str(a.sessions), "-m", str(a.messages), "-l", str(a.size), "-f", "a@from.test",
               "-t", "b@d001.test", "-M", "client.test"] + (["-d"] if kept else []) + [address]
    subprocess.run(command, check=True)
    accepted = time.monotonic() - began
    while True:
        now = metrics(http)
        if now["delivered_total"] >= a.messages and now["queued_messages"] == 0:
            break
        if time.monotonic() - began > 300:
            sys.exit("stalled")
        time.sleep(0.02)
    wall = time.monotonic() - began
    time.sleep(0.5)
    cpu = engine.cpu() - before
    result = dict(cpu_us=cpu / a.messages * 1e6, per_s=a.messages / wall, accepted_per_s=a.messages / accepted,
                  peak_rss_bytes=engine.rss(), messages_per_commit=a.messages / now["commits_total"])
    engine.stop()
    sink.stop()
    return result


def fan(a, window):
    command = [a.ringpost, "demo", "--json", "--recipients", str(a.recipients), "--size", str(a.size), "--window", str(window), "--cores", str(len(a.cpus.split(",")))]
    summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if summary["lost"] or summary["duplicated"]:
        sys.exit(f"lost or duplicated: {summary}")
    return dict(cpu_us=summary["cpu_us_per_delivery"], per_s=summary["deliveries_per_s"], peak_rss_bytes=summary["peak_rss_bytes"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("works", nargs="*", default=[])
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--messages", type=int, default=20000)
    p.add_argument("--recipients", type=int, default=100000)
    p.add_argument("--sessions", type=int, default=50)
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--cpus", default="0", help="CPUs of the engine, as 0,1")
    p.add_argument("--folder", default="/var/tmp")
    p.add_argument("--ringpost", default=os.path.join(ROOT, "target/release/ringpost"))
    p.add_argument("--loadgen", default=os.path.join(ROOT, "target/release/loadgen"))
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    works = {"relay-kept": lambda: in_folder(a, lambda f: relay(a, True, f)),
             "relay-session": lambda: in_folder(a, lambda f: relay(a, False, f)),
             "fan-window-1": lambda: fan(a, 1), "fan-open": lambda: fan(a, 8)}
    for name in a.works or works:
        runs = [works[name]() for _ in range(a.runs)]
        row = dict(work=name, runs=a.runs, load=os.getloadavg()[0])
        for key in runs[0]:
            values = [run[key] for run in runs]
            row[key] = dict(median=statistics.median(values), min=min(values), max=max(values))
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
