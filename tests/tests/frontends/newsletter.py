"""A small newsletter program: sends an issue to the subscribers of a file.

newsletter.py smtp|http HOST PORT SUBSCRIBERS ISSUE

By SMTP it is one letter for all, in transactions of 250 recipients, and the relay makes the return paths (XVERP). By
HTTP it is a letter that the relay fills in, and the list is brought as it lies in the file.
"""

import csv
import json
import smtplib
import sys
import urllib.request
from email.message import EmailMessage

SENDER = "news@b.test"
RECIPIENTS_MAX = 250


def letter(issue, to, words):
    message = EmailMessage()
    message["From"] = f"News <{SENDER}>"
    message["To"] = to
    message["Subject"] = f"News of {issue}"
    message["List-Id"] = "News <news.b.test>"
    message["X-Campaign"] = issue
    message.set_content(words)
    return message


def by_smtp(host, port, subscribers, issue):
    with open(subscribers, newline="") as file:
        addresses = [subscriber["email"] for subscriber in csv.DictReader(file)]
    message = letter(issue, SENDER, "Hello!\n")
    with smtplib.SMTP(host, port, timeout=60) as relay:
        relay.ehlo()
        assert relay.has_extn("xverp"), relay.esmtp_features
        for start in range(0, len(addresses), RECIPIENTS_MAX):
            some = addresses[start : start + RECIPIENTS_MAX]
            refused = relay.send_message(message, SENDER, some, mail_options=["XVERP"])
            assert not refused, refused


def by_http(host, port, subscribers, issue):
    campaign = {
        "envelope_sender": SENDER,
        "verp": True,
        "content": letter(issue, "{{email}}", "Hello {{name}}!\n").as_string(),
    }
    url = f"http://{host}:{port}/api/campaigns/{issue}"
    ask(url, "PUT", "application/json", json.dumps(campaign).encode())
    with open(subscribers, "rb") as file:
        answer = ask(url + "/recipients", "POST", "text/csv", file.read())
    assert answer["invalid"] == answer["duplicate"] == 0, answer


def ask(url, method, kind, body):
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


way, host, port, subscribers, issue = sys.argv[1:]
{"smtp": by_smtp, "http": by_http}[way](host, int(port), subscribers, issue)
