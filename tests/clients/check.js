// What the JavaScript scripts here share, as check.py for Python: `await check('claim', test)`
// prints `ok <claim>` or `not ok <claim>: reason`, which `run` counts; and where the cluster is.
'use strict';

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { isDeepStrictEqual, inspect } = require('node:util');

const port = (address) => Number(address.split(':').pop());
const leader = port(process.env.SESHAT_LEADER);
const followers = process.env.SESHAT_FOLLOWERS.split(' ').map(port);
const pids = new Map(process.env.SESHAT_PIDS.split(' ').map((entry) => {
  const [address, pid] = entry.split('=');
  return [port(address), Number(pid)];
}));

// A node of its own, which asks for a password and has a port for TLS.
const certificate = (name) => readFileSync(join(process.env.SESHAT_CERTIFICATES, name));
const guarded = {
  port: port(process.env.SESHAT_GUARDED),
  tlsPort: port(process.env.SESHAT_GUARDED_TLS),
  password: process.env.SESHAT_PASSWORD,
  tls: () => ({
    ca: certificate('ca.crt'), cert: certificate('client.crt'), key: certificate('client.key'),
  }),
  otherAuthority: () => certificate('other.crt'),
};

const kTakeoverMs = 10000; // 2 s is what the cluster needs; clients retry at their own pace

let running; // a claim: node ends without a word when there is nothing left to wait for
process.on('exit', () => { if (running) console.log(`not ok ${running}: it never ended`); });

async function check(claim, test) {
  running = claim;
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (error) {
    const where = /(\w*redis\w*\.js:\d+):\d+\)?$/m.exec(error.stack);
    const reason = `${where ? where[1] : '?'}: ${error.name}: ${error.message}`;
    console.log(`not ok ${claim}: ${reason.replaceAll('\n', ' | ')}`);
  } finally {
    running = undefined;
  }
}

const short = (value) => {
  const text = inspect(value, { breakLength: Infinity, maxStringLength: 300 });
  return text.length <= 500 ? text : `${text.slice(0, 500)} ...`;
};

function equal(found, expected) {
  if (!isDeepStrictEqual(found, expected)) {
    throw new Error(`expected ${short(expected)}, found ${short(found)}`);
  }
}

// The promise is rejected, and its message begins with `text`.
async function rejects(promise, text) {
  const error = await promise.then(() => null, (reason) => reason);
  if (!error) throw new Error(`expected ${text}, found no error`);
  if (!error.message.startsWith(text)) throw new Error(`expected ${text}, found ${error.message}`);
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

const keys = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}:${i}`);

// While there is no leader a client may give up on a command: the application calls again.
async function untilDone(call) {
  const deadline = Date.now() + kTakeoverMs;
  for (;;) {
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error('no answer in time')), deadline - Date.now()).unref();
    });
    try {
      return await Promise.race([call(), late]);
    } catch (error) {
      if (Date.now() >= deadline) throw error;
      await pause(20);
    }
  }
}

// kill -9, so that nothing is handed over; `run` starts the node again afterwards.
const kill = (node) => process.kill(pids.get(node), 'SIGKILL');

// These nodes do nothing, and their connections stay open, while `body` runs.
async function paused(ports, body) {
  ports.forEach((node) => process.kill(pids.get(node), 'SIGSTOP'));
  try {
    await body();
  } finally {
    ports.forEach((node) => process.kill(pids.get(node), 'SIGCONT'));
  }
}

module.exports = {
  check,
  equal,
  followers,
  guarded,
  keys,
  kill,
  leader,
  nodes: [leader, ...followers],
  pause,
  paused,
  rejects,
  untilDone,
};
