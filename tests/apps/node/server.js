// The sample app in Node: no dependency. tests/apps/README.md says what it answers.
"use strict";

const { spawn } = require("node:child_process");
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const DEFAULT_SECONDS = { "slow-start": 5, dies: 60, "bad-later": 10 };
// What a test may send or ask for; a mistyped number must not fill the machine.
const BODY_LIMIT = 64 << 20;
const BYTES_LIMIT = 1 << 30;
const FRAME_LIMIT = 1 << 20;
// Longer than any /slow a test asks for; after it the app leaves whatever is open.
const DRAIN_MS = 60_000;
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455, section 1.3

function read(name, fallback) {
  try {
    return fs.readFileSync(path.join(__dirname, name), "utf8").trim();
  } catch {
    return fallback;
  }
}

const [variant, given] = read("variant", "healthy").split(":");
const seconds = given === undefined ? (DEFAULT_SECONDS[variant] ?? 0) : Number(given);
const version = read("version", "unknown");
const release = process.env.TEMPS_RELEASE || "unknown";
const started = performance.now();

let draining = false;
let inFlight = 0;
const streams = new Set();
const websockets = new Set();

const isBad = () =>
  variant === "error" || (variant === "bad-later" && performance.now() - started >= seconds * 1000);

const facts = (url) => ({ release, version, pid: process.pid, path: url.pathname });

function head(res, status, headers) {
  const closing = draining ? { Connection: "close" } : {};
  res.writeHead(status, { "X-Release": release, "X-Version": version, ...headers, ...closing });
}

function answer(res, status, type, body) {
  head(res, status, { "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
  res.end(body);
}

const answerJson = (res, status, value) =>
  answer(res, status, "application/json", JSON.stringify(value) + "\n");

async function bodyOf(req) {
  const parts = [];
  let size = 0;
  for await (const part of req) {
    size += part.length;
    if (size > BODY_LIMIT) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function sendBytes(req, res, n) {
  if (!Number.isInteger(n) || n < 0) return answerJson(res, 400, { error: "n is a number of bytes" });
  let left = Math.min(n, BYTES_LIMIT);
  head(res, 200, { "Content-Type": "application/octet-stream", "Content-Length": left });
  const block = Buffer.from(Uint8Array.from({ length: 65536 }, (_, i) => i & 255));
  while (left > 0 && req.method !== "HEAD" && !res.destroyed) {
    const part = block.subarray(0, Math.min(left, block.length));
    left -= part.length;
    if (!res.write(part)) {
      await new Promise((done) => {
        res.once("drain", done);
        res.once("close", done);
      });
    }
  }
  res.end();
}

// An event each 200 ms; a stop of the app ends the stream properly.
function sendEvents(req, res, forSeconds) {
  head(res, 200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  if (req.method === "HEAD") return res.end();
  const end = performance.now() + Math.min(forSeconds, 60) * 1000;
  let number = 0;
  const event = () => {
    if (performance.now() >= end) return res.end();
    res.write(`id: ${number}\ndata: ${JSON.stringify({ n: number, release })}\n\n`);
    number += 1;
  };
  event();
  const timer = setInterval(event, 200);
  streams.add(res);
  res.on("close", () => {
    clearInterval(timer);
    streams.delete(res);
  });
}

async function handle(req, res) {
  const url = new URL(req.url, "http://app");
  const query = url.searchParams;
  const body = await bodyOf(req);
  if (body === null) return answerJson(res, 413, { error: "body too large" });
  if (isBad()) {
    return answerJson(res, 500, { error: `this release is made to fail (${variant})`, ...facts(url) });
  }
  switch (url.pathname) {
    case "/slow":
      await new Promise((done) => setTimeout(done, Number(query.get("s") ?? 1) * 1000));
      break;
    case "/bytes":
      return sendBytes(req, res, Number(query.get("n") ?? 1024));
    case "/echo":
      return answer(res, 200, req.headers["content-type"] ?? "application/octet-stream", body);
    case "/env": {
      const name = query.get("name") ?? "";
      const value = process.env[name] ?? null;
      return answerJson(res, value === null ? 404 : 200, { name, value });
    }
    case "/log":
      console.log(query.get("line"));
      break;
    case "/sse":
      return sendEvents(req, res, Number(query.get("s") ?? 60));
    case "/ws":
      return answerJson(res, 426, { error: "this path speaks WebSocket" });
  }
  answerJson(res, 200, facts(url));
}

function frame(first, data) {
  let length;
  if (data.length < 126) {
    length = Buffer.from([first, data.length]);
  } else if (data.length < 1 << 16) {
    length = Buffer.from([first, 126, 0, 0]);
    length.writeUInt16BE(data.length, 2);
  } else {
    length = Buffer.alloc(10);
    length.set([first, 127]);
    length.writeBigUInt64BE(BigInt(data.length), 2);
  }
  return Buffer.concat([length, data]);
}

const closeFrame = (code) => frame(0x88, Buffer.from([code >> 8, code & 255]));

// Takes one frame off the front of `buffer`: { first, data, rest }, null if it is not whole yet,
// "bad" if no client may send it.
function takeFrame(buffer) {
  if (buffer.length < 2) return null;
  let length = buffer[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (buffer.length < 4) return null;
    length = buffer.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (buffer.length < 10) return null;
    length = Number(buffer.readBigUInt64BE(2));
    at = 10;
  }
  if (!(buffer[1] & 0x80) || length > FRAME_LIMIT) return "bad";
  if (buffer.length < at + 4 + length) return null;
  const mask = buffer.subarray(at, at + 4);
  const data = Buffer.from(buffer.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < data.length; i += 1) data[i] ^= mask[i & 3];
  return { first: buffer[0], data, rest: buffer.subarray(at + 4 + length) };
}

// Echoes text and binary frames as they come, until either side closes.
function websocket(req, socket, early) {
  const url = new URL(req.url, "http://app");
  const key = req.headers["sec-websocket-key"];
  const common = `X-Release: ${release}\r\nX-Version: ${version}\r\n`;
  if (isBad() || url.pathname !== "/ws" || key === undefined) {
    const status = isBad() ? "500 Internal Server Error" : "400 Bad Request";
    return socket.end(`HTTP/1.1 ${status}\r\n${common}Content-Length: 0\r\nConnection: close\r\n\r\n`);
  }
  const accept = createHash("sha1").update(key + WEBSOCKET_GUID).digest("base64");
  socket.setNoDelay(true);
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\n${common}\r\n`,
  );
  websockets.add(socket);
  let buffer = early;
  const work = () => {
    for (;;) {
      const taken = takeFrame(buffer);
      if (taken === null) return;
      if (taken === "bad") return socket.end(closeFrame(1002));
      buffer = taken.rest;
      const opcode = taken.first & 0x0f;
      if (opcode === 0x8) return socket.end(frame(0x88, taken.data));
      if (opcode === 0x9) socket.write(frame(0x8a, taken.data));
      else if (opcode !== 0xa) socket.write(frame(taken.first, taken.data));
    }
  };
  socket.on("data", (part) => {
    buffer = Buffer.concat([buffer, part]);
    work();
  });
  socket.on("error", () => socket.destroy());
  socket.on("close", () => websockets.delete(socket));
  work();
}

function leaveIfQuiet() {
  if (draining && inFlight === 0) {
    for (const socket of websockets) socket.write(closeFrame(1001));
    // One turn of the loop, so that the last bytes reach the kernel.
    setTimeout(() => process.exit(0), 10);
  }
}

function serve() {
  const host = process.env.HOST || "127.0.0.1";
  const port = variant === "wrong-port" ? 0 : Number(process.env.PORT || 8080);
  // Keep-alive stays at Node's default, 5 s idle, as in the apps people deploy.
  const server = http.createServer((req, res) => {
    inFlight += 1;
    res.on("close", () => {
      inFlight -= 1;
      leaveIfQuiet();
    });
    handle(req, res).catch((error) => {
      if (res.headersSent || res.destroyed) return res.destroy();
      answerJson(res, 400, { error: String(error) });
    });
  });
  server.on("upgrade", websocket);
  server.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  server.listen({ host, port, backlog: 1024 }, () => {
    console.log(`node ${version} (${variant}) listens on ${host}:${server.address().port}`);
  });
  return server;
}

function main() {
  let server = null;
  const stop = () => {
    if (draining) return;
    draining = true;
    server?.close();
    for (const res of streams) res.end();
    setTimeout(() => process.exit(0), DRAIN_MS).unref();
    leaveIfQuiet();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  const start = () => {
    if (variant === "crash") {
      console.error(new Error("cannot reach the database: this release is made to crash").stack);
      process.exit(3);
    }
    if (variant === "fork") {
      // One child in our process group, and one that escapes it; neither is ended by us.
      const sleeper = ["-e", "setTimeout(() => {}, 3600000)"];
      spawn(process.execPath, sleeper, { stdio: "inherit" });
      spawn(process.execPath, sleeper, { stdio: "inherit", detached: true });
    }
    if (variant === "dies") {
      setTimeout(() => {
        console.error(`fatal: this release dies ${seconds} s after its start`);
        process.exit(1);
      }, seconds * 1000);
    }
    server = serve();
  };
  if (variant === "slow-start" || variant === "crash") setTimeout(start, seconds * 1000);
  else start();
}

main();
