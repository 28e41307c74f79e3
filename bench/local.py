#!/usr/bin/env python3
"""What delivery to this machine's mailboxes costs, and what fetching it again. The whole of `ringpost supervise` on loopback; root
only, because each mailbox is another user's.

  bench/local.py [deliver] [postfix] [pop3] [dovecot] [--mailboxes 8] [--messages 4000] [--size 4096] [--runs 3] [--json]

  deliver  --messages of --size octets from 50 sessions, one recipient each, to the Maildirs of --mailboxes users, by way of engine,
           `local`, `launch` and a process of the recipient's; each is synced before the engine hears of it. Deliveries per second
           from the first octet to the last message in a Maildir, CPU per delivery by part, system time included
  postfix  the same to the same Maildirs by a Postfix of our own, its virtual(8) delivery agent; the programs are Debian's
  pop3     one session fetches --messages of --size octets by RETR: messages and MiB per second, CPU per message; and milliseconds
           from PASS to +OK for a Maildir with 10,000 messages whose names tell their sizes (a second session: warm)
  dovecot  the same of the same Maildirs by Dovecot's POP3 server, which keeps indexes of its own

All parts share the machine with the source. A row is the median with the smallest and largest of its runs; only what ran in the
same run compares. Programs come from target/release unless --ringpost and --loadgen name others.
"""
import os, pwd, socket, subprocess, sys, tempfile, time
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
POSTFIX = """compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
maillog_file = {folder}/log
maillog_file_prefixes = /var, /tmp
myhostname = local.bench.test
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/home
virtual_mailbox_maps = texthash:{folder}/postfix/boxes
virtual_uid_maps = texthash:{folder}/postfix/uids
virtual_gid_maps = texthash:{folder}/postfix/uids
virtual_mailbox_limit = 0
"""
DOVECOT = """base_dir = {folder}/run
log_path = {folder}/log
protocols = pop3
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""
FIRST_UID = 62001
PARTS = ["serve", "local", "launch", "pop3"]
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def stat_of(pid):
    """The fields of /proc/PID/stat behind the name: of the kernel's numbers the first is 3."""
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()


def cpu_of_tree(root):
    """Seconds of a process, of those below it, and of those that have ended and were waited for."""
    fields = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields[int(pid)] = stat_of(pid)
        except OSError:
            pass
    tree, more = {root}, True
    while more:
        found = {pid for pid, of in fields.items() if int(of[1]) in tree} - tree
        tree, more = tree | found, bool(found)
    return sum(sum(map(int, fields[pid][11:15])) for pid in tree if pid in fields) / TICK


class Homes:
    """Users with a Maildir each, and a folder for whoever serves them."""

    def __init__(self, a):
        self.a = a
        self.folder = tempfile.TemporaryDirectory(prefix="ringpost-bench-", dir=a.folder)
        os.chmod(self.folder.name, 0o755)
        self.names = [f"box{n}" for n in range(a.mailboxes)]
        for uid, name in enumerate(self.names, FIRST_UID):
            for part in ["", "/Maildir", "/Maildir/tmp", "/Maildir/new", "/Maildir/cur"]:
                os.makedirs(self.home(name) + part, exist_ok=True)
                os.chown(self.home(name) + part, uid, uid)

    def home(self, name):
        return f"{self.folder.name}/home/{name}"

    def write(self, name, text):
        path = f"{self.folder.name}/{name}"
        with open(path, "w") as f:
            f.write(text)
        return path

    def arrived(self):
        return sum(len(os.listdir(f"{self.home(name)}/Maildir/new")) for name in self.names)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.folder.cleanup()


class House(Homes):
    """All parts, with so many users."""

    def __init__(self, a):
        super().__init__(a)
        folder = self.folder.name
        table, passwords = "", ""
        for uid, name in enumerate(self.names, FIRST_UID):
            with open(self.home(name) + "/.qmail-default", "w") as f:
                f.write("./Maildir/\n")
            table += f"+{name}-:{name}:{uid}:{uid}:{self.home(name)}:-::\n"
            passwords += f"{name}:{{PLAIN}}secret\n"
        self.write("assign", table + ".\n")
        self.write("passwords", passwords)
        os.chmod(f"{folder}/passwords", 0o600)
        os.chown(f"{folder}/passwords", pwd.getpwnam("proxy").pw_uid, -1)
        self.smtp, self.pop3 = free_port(), free_port()
        virtual = ", ".join(f'"d{n + 1:03}.test:{name}"' for n, name in enumerate(self.names))
        path = self.write("ringpost.toml", CONFIG.format(folder=folder, smtp=self.smtp, pop3=self.pop3, virtual=virtual))
        env = dict(os.environ, RUST_LOG="warn")
        self.child = subprocess.Popen([a.ringpost, "supervise", "--config", path], stdout=subprocess.PIPE, text=True, env=env)
        while not (line := self.child.stdout.readline()).startswith("supervising"):
            line or sys.exit("ringpost did not start")
        words = line.split()[1:]
        self.pids = dict(zip(words[::2], map(int, words[1::2])))

    def cpu(self):
        """Seconds by part; the launcher's has its users' processes, those that still run as well."""
        seconds = {part: self.cpu_of(pid) for part, pid in self.pids.items()}
        seconds["users"] = 0.0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = stat_of(pid)
            except OSError:
                continue
            if int(fields[1]) == self.pids["launch"]:
                seconds["users"] += sum(map(int, fields[11:13])) / TICK
        # Those that have ended are counted where they were waited for.
        seconds["users"] += sum(map(int, stat_of(self.pids["launch"])[13:15])) / TICK
        return seconds

    def cpu_of(self, pid):
        return sum(map(int, stat_of(pid)[11:13])) / TICK

    def stop(self):
        self.child.terminate()
        self.child.wait(90)


class Postfix(Homes):
    """A Postfix with its own configuration and spool: as it comes, but for a delivery agent to the same Maildirs, and without
    look-ups, limits and pauses that a benchmark would measure instead."""

    def __init__(self, a):
        super().__init__(a)
        folder, etc = self.folder.name, f"{self.folder.name}/postfix"
        self.smtp = free_port()
        for name in ["postfix", "spool", "data"]:
            os.makedirs(f"{folder}/{name}")
        os.chown(f"{folder}/data", pwd.getpwnam("postfix").pw_uid, 0)
        numbers = range(1, a.mailboxes + 1)
        self.write("postfix/boxes", "".join(f"@d{n:03}.test box{n - 1}/Maildir/\n" for n in numbers))
        self.write("postfix/uids", "".join(f"@d{n:03}.test {FIRST_UID + n - 1}\n" for n in numbers))
        self.write("postfix/main.cf", POSTFIX.format(folder=folder, domains=", ".join(f"d{n:03}.test" for n in numbers)))
        lines = []
        for line in open("/usr/share/postfix/master.cf.dist"):
            words = line.split()
            if not words or line[0] in "# \t" or words[0] in ["maildrop", "uucp", "ifmail", "bsmtp", "scalemail-backend", "mailman"]:
                continue
            if words[1] == "inet":
                if words[0] != "smtp":
                    continue
                words[0] = f"127.0.0.1:{self.smtp}"
            words[4] = "n"
            lines.append(" ".join(words))
        self.write("postfix/master.cf", "\n".join(lines) + "\n")
        self.etc = etc
        subprocess.run(["postfix", "-c", etc, "start"], check=True, stderr=subprocess.DEVNULL)
        while not os.path.exists(path := f"{folder}/spool/pid/master.pid") or not open(path).read().strip():
            time.sleep(0.05)
        self.master = int(open(path).read())

    def cpu(self):
        return dict(postfix=cpu_of_tree(self.master))

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], stderr=subprocess.DEVNULL)


class Dovecot(Homes):
    """A Dovecot with its own configuration, for POP3 alone."""

    def __init__(self, a):
        super().__init__(a)
        folder, self.pop3 = self.folder.name, free_port()
        path = self.write("dovecot.conf", DOVECOT.format(folder=folder, port=self.pop3))
        self.write("users", "".join(f"{name}:{{PLAIN}}secret:{uid}:{uid}::{self.home(name)}::\n"
                                    for uid, name in enumerate(self.names, FIRST_UID)))
        self.child = subprocess.Popen(["dovecot", "-F", "-c", path])
        wait_for_port(self.pop3)

    def cpu(self):
        return dict(pop3=cpu_of_tree(self.child.pid))

    def stop(self):
        self.child.terminate()
        self.child.wait(90)


def deliver(a, kind):
    with kind(a) as house:
        wait_for_port(house.smtp)
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
        micros = {f"{part}_cpu_us": spent / a.messages * 1e6 for part, spent in cpu.items() if part != "pop3"}
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


def pop3(a, kind):
    with kind(a) as house:
        fill(house.home("box0") + "/Maildir", FIRST_UID, a.messages, a.size)
        fill(house.home("box1") + "/Maildir", FIRST_UID + 1, 10_000, 100)
        fetch_all(house.pop3, "box1", 0)
        opened, _, _ = fetch_all(house.pop3, "box1", 0)
        before = house.cpu()
        _, octets, seconds = fetch_all(house.pop3, "box0", a.messages)
        # The owner's process is at work for whoever reads their mail.
        cpu = sum(now - before[part] for part, now in house.cpu().items() if part in ["pop3", "launch", "users"])
        return dict(messages_per_second=a.messages / seconds, mib_per_second=octets / seconds / 2**20,
                    pop3_cpu_us=cpu / a.messages * 1e6, open_10000_ms=opened * 1e3)


WORKS = {
    "deliver": lambda a: deliver(a, House),
    "postfix": lambda a: deliver(a, Postfix),
    "pop3": lambda a: pop3(a, House),
    "dovecot": lambda a: pop3(a, Dovecot),
}


def main():
    p = parser(__doc__, list(WORKS), cpus="0,1", runs=3)
    p.add_argument("--mailboxes", type=int, default=8)
    p.add_argument("--messages", type=int, default=4000)
    p.add_argument("--size", type=int, default=4096)
    a = p.parse_args()
    known(p, a.works, list(WORKS))
    if os.geteuid() != 0:
        sys.exit("only root can start processes of other users")
    for name in a.works or WORKS:
        tell(a, measure(a, name, lambda: WORKS[name](a)))


main()
