// ioredis' Cluster: any node to start from, and a leader that dies under it.
'use strict';

const Redis = require('ioredis');
const { check, equal, followers, killLeader, leader, nodes, pause, paused, rejects } = require('./check.js');

const kTakeoverMs = 10000; // 2 s is what the cluster needs; ioredis retries at its own pace

// Calls test(cluster, troubles), then disconnects; troubles are what ioredis reports on the side.
async function withCluster(port, test) {
  const troubles = [];
  const cluster = new Redis.Cluster([{ host: '127.0.0.1', port }]);
  cluster.on('error', (error) => troubles.push(error.message));
  cluster.on('node error', (error, node) => troubles.push(`${node}: ${error.message}`));
  try {
    await test(cluster, troubles);
  } finally {
    cluster.disconnect();
  }
}

const keys = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}:${i}`);

// While there is no leader ioredis may give up on a command: the application calls again.
async function setUntilDone(cluster, key, value) {
  const deadline = Date.now() + kTakeoverMs;
  for (;;) {
    try {
      return await cluster.set(key, value);
    } catch (error) {
      if (Date.now() >= deadline) throw error;
      await pause(20);
    }
  }
}

async function main() {
  await check('100 keys from each node as the start node, without an error on the side', async () => {
    for (const port of nodes) {
      await withCluster(port, async (cluster, troubles) => {
        const mine = keys(`jsc:${port}`, 100);
        equal(await Promise.all(mine.map((key) => cluster.set(key, key))), mine.map(() => 'OK'));
        equal(await Promise.all(mine.map((key) => cluster.get(key))), mine);
        equal(await cluster.exists(`jsc:${port}:1`), 1);
        equal(await cluster.del(`jsc:${port}:1`), 1);
        equal(await cluster.get(`jsc:${port}:1`), null);
        equal(troubles, []);
      });
    }
  });

  await check('it knows one master and two replicas', () => withCluster(nodes[1], async (cluster) => {
    await cluster.ping();
    const ports = (role) => cluster.nodes(role).map((node) => node.options.port).sort();
    equal(ports('master'), [leader]);
    equal(ports('slave'), [...followers].sort());
  }));

  await check('a pipeline', () => withCluster(nodes[2], async (cluster) => {
    const pipeline = cluster.pipeline();
    keys('jsc', 100).forEach((key) => pipeline.set(key, key).get(key));
    equal(await pipeline.exec(), keys('jsc', 100).flatMap((key) => [[null, 'OK'], [null, key]]));
  }));

  await check('errors are rejected, not retried', () => withCluster(nodes[1], async (cluster) => {
    await rejects(cluster.set('jsc:a', 'v'.repeat(65537)), 'ERR value too large');
    await rejects(cluster.multi().set('jsc:multi', '1').exec(), 'EXECABORT');
    equal(await cluster.get('jsc:multi'), null);
  }));

  await check('without a majority it rejects; with one again, the same client goes on', () =>
    withCluster(followers[0], async (cluster) => {
      await cluster.set('jsc:pause', '1');
      await paused([leader, followers[1]], async () => {
        const waited = cluster.set('jsc:pause', '2').then(() => 'was set', (error) => error.message);
        equal(await Promise.race([waited, pause(1500).then(() => 'no answer yet')]), 'no answer yet');
      });
      equal(await setUntilDone(cluster, 'jsc:pause', '3'), 'OK');
      equal(await cluster.get('jsc:pause'), '3');
    }));

  await check('after kill -9 of the leader the same client goes on, and finds all it wrote', () =>
    withCluster(nodes[1], async (cluster) => {
      const all = keys('jsc:kill', 200);
      for (const key of all.slice(0, 100)) await cluster.set(key, key);
      killLeader();
      for (const key of all.slice(100)) equal(await setUntilDone(cluster, key, key), 'OK');
      equal(await Promise.all(all.map((key) => cluster.get(key))), all);
    }));
}

main();
