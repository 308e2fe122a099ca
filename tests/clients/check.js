// What the JavaScript scripts here share, as check.py for Python: `await check('claim', test)` prints
// `ok <claim>` or `not ok <claim>: reason`, which `run` counts; and where the cluster is.
'use strict';

const { isDeepStrictEqual, inspect } = require('node:util');

const port = (address) => Number(address.split(':').pop());
const leader = port(process.env.SESHAT_LEADER);
const followers = process.env.SESHAT_FOLLOWERS.split(' ').map(port);
const pids = Object.fromEntries(process.env.SESHAT_PIDS.split(' ').map((entry) => entry.split('=')));

async function check(claim, test) {
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (error) {
    const where = /(ioredis\w*\.js:\d+):\d+\)?$/m.exec(error.stack);
    console.log(`not ok ${claim}: ${where ? `${where[1]}: ` : ''}${error.name}: ${error.message}`);
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

// kill -9, so that nothing is handed over; `run` starts the node again afterwards.
const killLeader = () => process.kill(Number(pids[`127.0.0.1:${leader}`]), 'SIGKILL');

// These nodes do nothing, and their connections stay open, while `body` runs.
async function paused(ports, body) {
  const signal = (name) => ports.forEach((p) => process.kill(Number(pids[`127.0.0.1:${p}`]), name));
  signal('SIGSTOP');
  try {
    await body();
  } finally {
    signal('SIGCONT');
  }
}

module.exports = {
  check, equal, followers, killLeader, leader, nodes: [leader, ...followers], pause, paused, rejects,
};
