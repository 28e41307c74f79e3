"""What the scripts here share: children that announce themselves, their cost, the source, and rows of medians."""
import argparse, json, os, resource, signal, statistics, subprocess, sys, time, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Program:
    """A child whose first line on standard output is `listening ADDRESS …`, or begins with another word. It runs on `cpus`, if
    they are named."""

    def __init__(self, command, word="listening", cpus=None):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(cpus),
                                      env=dict(os.environ, RUST_LOG="warn"))
        self.words = self.child.stdout.readline().split()
        if not self.words or self.words[0] != word:
            sys.exit(f"{command[0]} said {self.words}")

    def cpu(self):
        fields = open(f"/proc/{self.child.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name):
        return next(int(l.split()[1]) for l in open(f"/proc/{self.child.pid}/status") if l.startswith(name)) * 1024

    def rss(self):
        """The largest so far."""
        return self.memory("VmHWM")

    def rss_now(self):
        return self.memory("VmRSS")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)

    def report(self):
        """What a sink or a crowd says at its end, which this is."""
        self.child.send_signal(signal.SIGTERM)
        line = self.child.stdout.read().splitlines()[-1]
        self.child.wait(60)
        return json.loads(line)

    def kill(self):
        self.child.kill()
        self.child.wait()


class Engine(Program):
    """ringpost with a config of `folder`."""

    def __init__(self, a, folder, config):
        path = os.path.join(folder, "ringpost.toml")
        with open(path, "w") as f:
            f.write(config)
        self.began = time.monotonic()
        super().__init__([a.ringpost, "serve", "--config", path])
        self.ready = time.monotonic() - self.began
        self.address, self.http = self.words[1], self.words[3]

    def metric(self, name):
        return metrics(self.http)[name]

    def wait(self, holds, what, limit=900):
        """The metrics once they hold it."""
        began = time.monotonic()
        while not holds(now := metrics(self.http)):
            if time.monotonic() - began > limit:
                sys.exit(f"waited too long for {what}: {now}")
            time.sleep(0.02)
        return now


def pinned(cpus):
    return (lambda: os.sched_setaffinity(0, cpus)) if cpus else None


def metrics(http):
    text = urllib.request.urlopen(f"http://{http}/metrics", timeout=10).read().decode()
    return {l.split()[0].removeprefix("ringpost_"): float(l.split()[1]) for l in text.splitlines() if l[0] != "#"}


def source(a, address, messages, recipients, size, *options, cpus=None):
    """The source's report; everything must have been accepted."""
    command = [a.loadgen, "source", address, "--messages", str(messages), "--recipients", str(recipients), "--size", str(size),
               "--timeout", "600", "--json", *options]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=pinned(cpus))
    report = json.loads(run.stdout or sys.exit(f"the source said nothing: {' '.join(command)}"))
    if report["recipients_accepted"] != messages * recipients:
        sys.exit(f"not all was accepted: {report}")
    return report


def parser(doc, works, cpus="0", runs=5):
    """The arguments of every script."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("works", nargs="*", default=[], help=", ".join(works) + "; without one, all")
    p.add_argument("--runs", type=int, default=runs)
    p.add_argument("--cpus", default=cpus, help="CPUs of the engine, as 0,1")
    p.add_argument("--folder", default="/var/tmp")
    p.add_argument("--ringpost", default=os.path.join(ROOT, "target/release/ringpost"))
    p.add_argument("--loadgen", default=os.path.join(ROOT, "target/release/loadgen"))
    p.add_argument("--json", action="store_true", help="one object per work")
    return p


def known(p, names, *allowed):
    """Ends the program over a name that is none of them."""
    if unknown := [name for name in names if not any(name in some for some in allowed)]:
        p.error(f"unknown: {' '.join(unknown)}")


def raise_descriptors():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def measure(a, name, work):
    """Runs `work` as often as asked. A row: each figure's median, smallest and largest."""
    runs = [work() for _ in range(a.runs)]
    row = dict(work=name, runs=a.runs, load=os.getloadavg()[0])
    for key in runs[0]:
        values = [run[key] for run in runs]
        row[key] = dict(median=statistics.median(values), min=min(values), max=max(values))
    return row


def tell(a, row):
    if a.json:
        print(json.dumps(row), flush=True)
        return
    print(f"{row['work']}: medians of {a.runs} runs (smallest–largest), load {row['load']:.1f}")
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"  {key:28} {show(key, value['median']):>14} ({show(key, value['min'])}–{show(key, value['max'])})", flush=True)


def show(key, value):
    return f"{value / 2**20:,.1f} MiB" if key.endswith("rss_bytes") else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
