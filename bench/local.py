#!/usr/bin/env python3
"""What delivery to this machine's mailboxes costs, and what fetching it again. The whole of `ringpost supervise` on loopback; root
only, because each mailbox is another user's.

  bench/local.py [deliver] [pop3] [--mailboxes 8] [--messages 4000] [--size 4096] [--runs 3] [--json]

  deliver  --messages of --size octets from 50 sessions, one recipient each, to the Maildirs of --mailboxes users, by way of engine,
           `local`, `launch` and a process of the recipient's; each is synced before the engine hears of it. Deliveries per second
           from the first octet to the last message in a Maildir, CPU per delivery by part, system time included
  pop3     one session fetches --messages of --size octets by RETR: messages and MiB per second, CPU per message; and milliseconds
           from PASS to +OK for a Maildir with 10,000 messages whose names tell their sizes (a second session: warm)

All parts share the machine with the source. A row is the median with the smallest and largest of its runs; only what ran in the
same run compares. Programs come from target/release unless --ringpost and --loadgen name others.
"""
import os, socket, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import known, measure, parser, tell

CONFIG = """host_name = "local.bench.test"
queue = "{folder}/queue"
listen = ["127.0.0.1:{smtp}"]
submit = "{folder}/run/submit.sock"
[storage]
free_min = 0
[local]
virtual_domains = [{virtual}]
assign = "{folder}/assign"
[supervise]
run = "{folder}/run"
engine_user = "daemon"
local_user = "news"
pop3_user = "proxy"
[pop3]
listen = ["127.0.0.1:{pop3}"]
maildir = "{folder}/home/{{user}}/Maildir"
password_file = "{folder}/passwords"
"""
FIRST_UID = 62001
PARTS = ["serve", "local", "launch", "pop3"]
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pid_of(user):
    return next(int(l.split(":")[2]) for l in open("/etc/passwd") if l.startswith(user + ":"))


class House:
    """All parts, with so many users."""

    def __init__(self, a):
        self.a = a
        self.folder = tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder)
        folder = self.folder.name
        os.chmod(folder, 0o755)
        self.names = [f"box{n}" for n in range(a.mailboxes)]
        table, passwords = "", ""
        for uid, name in enumerate(self.names, FIRST_UID):
            home = f"{folder}/home/{name}"
            for part in ["", "/Maildir", "/Maildir/tmp", "/Maildir/new", "/Maildir/cur"]:
                os.makedirs(home + part, exist_ok=True)
                os.chown(home + part, uid, uid)
            with open(home + "/.qmail-default", "w") as f:
                f.write("./Maildir/\n")
            table += f"+{name}-:{name}:{uid}:{uid}:{home}:-::\n"
            passwords += f"{name}:{{PLAIN}}secret\n"
        self.write("assign", table + ".\n")
        self.write("passwords", passwords)
        os.chmod(f"{folder}/passwords", 0o600)
        os.chown(f"{folder}/passwords", pid_of("proxy"), -1)
        self.smtp, self.pop3 = free_port(), free_port()
        virtual = ", ".join(f'"d{n + 1:03}.test:{name}"' for n, name in enumerate(self.names))
        path = self.write("ringpost.toml", CONFIG.format(folder=folder, smtp=self.smtp, pop3=self.pop3, virtual=virtual))
        env = dict(os.environ, RUST_LOG="warn")
        self.child = subprocess.Popen([a.ringpost, "supervise", "--config", path], stdout=subprocess.PIPE, text=True, env=env)
        while not (line := self.child.stdout.readline()).startswith("supervising"):
            line or sys.exit("ringpost did not start")
        words = line.split()[1:]
        self.pids = dict(zip(words[::2], map(int, words[1::2])))

    def write(self, name, text):
        path = f"{self.folder.name}/{name}"
        with open(path, "w") as f:
            f.write(text)
        return path

    def cpu(self):
        """Seconds by part; the launcher's has its users' processes, those that still run as well."""
        seconds = {part: self.cpu_of(pid) for part, pid in self.pids.items()}
        seconds["users"] = 0.0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == self.pids["launch"]:
                seconds["users"] += sum(map(int, fields[11:13])) / TICK
        # Those that have ended are counted where they were waited for.
        fields = open(f"/proc/{self.pids['launch']}/stat").read().rsplit(")", 1)[1].split()
        seconds["users"] += sum(map(int, fields[13:15])) / TICK
        return seconds

    def cpu_of(self, pid):
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / TICK

    def arrived(self):
        return sum(len(os.listdir(f"{self.folder.name}/home/{name}/Maildir/new")) for name in self.names)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait(90)
        self.folder.cleanup()


def deliver(a):
    with House(a) as house:
        before, began = house.cpu(), time.monotonic()
        sender = subprocess.Popen([a.loadgen, "source", f"127.0.0.1:{house.smtp}", "--messages", str(a.messages), "--recipients", "1",
                                   "--size", str(a.size), "--sessions", "50", "--domain-count", str(a.mailboxes), "--timeout", "600",
                                   "--json"], stdout=subprocess.DEVNULL)
        while house.arrived() < a.messages:
            if time.monotonic() - began > 600:
                sys.exit(f"only {house.arrived()} arrived")
            time.sleep(0.02)
        seconds = time.monotonic() - began
        sender.wait(60)
        cpu = {part: now - before[part] for part, now in house.cpu().items()}
        micros = {f"{part}_cpu_us": cpu[part] / a.messages * 1e6 for part in ["serve", "local", "launch", "users"]}
        return dict(deliveries_per_second=a.messages / seconds, cpu_us=sum(micros.values()), **micros)


def fetch_all(port, user, messages):
    s = socket.create_connection(("127.0.0.1", port))
    f = s.makefile("rwb", buffering=1 << 16)
    def say(line):
        f.write(line + b"\r\n")
        f.flush()
        got = f.readline()
        got.startswith(b"+OK") or sys.exit(f"{line}: {got}")
    f.readline()
    say(b"USER " + user.encode())
    began = time.monotonic()
    say(b"PASS secret")
    opened = time.monotonic() - began
    began, octets = time.monotonic(), 0
    for number in range(1, messages + 1):
        say(b"RETR %d" % number)
        while (line := f.readline()) != b".\r\n":
            octets += len(line)
    seconds = time.monotonic() - began
    say(b"QUIT")
    return opened, octets, seconds


def fill(folder, uid, count, size):
    body = b"Subject: bench\n\n" + (b"x" * 70 + b"\n") * (size // 71)
    wire = len(body.replace(b"\n", b"\r\n"))
    for number in range(count):
        path = f"{folder}/new/1700000000.M{number}P1Q{number}.bench,S={len(body)},W={wire}"
        with open(path, "wb") as f:
            f.write(body)
        os.chown(path, uid, uid)


def pop3(a):
    with House(a) as house:
        home = f"{house.folder.name}/home"
        fill(f"{home}/box0/Maildir", FIRST_UID, a.messages, a.size)
        fill(f"{home}/box1/Maildir", FIRST_UID + 1, 10_000, 100)
        fetch_all(house.pop3, "box1", 0)
        opened, _, _ = fetch_all(house.pop3, "box1", 0)
        before = house.cpu()
        _, octets, seconds = fetch_all(house.pop3, "box0", a.messages)
        spent = house.cpu()
        cpu = spent["pop3"] - before["pop3"]
        return dict(messages_per_second=a.messages / seconds, mib_per_second=octets / seconds / 2**20,
                    pop3_cpu_us=cpu / a.messages * 1e6, open_10000_ms=opened * 1e3)


def main():
    p = parser(__doc__, ["deliver", "pop3"], cpus="0,1", runs=3)
    p.add_argument("--mailboxes", type=int, default=8)
    p.add_argument("--messages", type=int, default=4000)
    p.add_argument("--size", type=int, default=4096)
    a = p.parse_args()
    known(p, a.works, ["deliver", "pop3"])
    if os.geteuid() != 0:
        sys.exit("only root can start processes of other users")
    for name, work in [("deliver", deliver), ("pop3", pop3)]:
        if not a.works or name in a.works:
            tell(a, measure(a, name, lambda: work(a)))


main()
