// A small newsletter program: each subscriber of a file gets a letter of their own, with a return path that the program
// makes, over a few connections that are kept.
//
// node newsletter.cjs HOST PORT SUBSCRIBERS ISSUE

"use strict";

const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [host, port, subscribers, issue] = process.argv.slice(2);

const [, ...lines] = fs.readFileSync(subscribers, "utf8").trim().split("\n");

const relay = nodemailer.createTransport({
  host,
  port: Number(port),
  secure: false,
  ignoreTLS: true,
  pool: true,
  maxConnections: 5,
  maxMessages: Infinity,
});

function send(line) {
  const [address, name] = line.split(",");
  return relay.sendMail({
    envelope: { from: `news+${address.replace("@", "=")}@b.test`, to: address },
    from: "News <news@b.test>",
    to: { name, address },
    subject: `News of ${issue}`,
    headers: { "X-Campaign": issue, "MT-Priority": "-4" },
    list: { id: { url: "news.b.test", comment: "News" } },
    text: `Hello ${name}!\n`,
    html: `<p>Hello <b>${name}</b>!</p>\n`,
  });
}

Promise.all(lines.map(send)).then(
  () => relay.close(),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
