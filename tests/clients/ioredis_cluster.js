// ioredis' Cluster: any node to start from, and a leader that dies under it.
'use strict';

const Redis = require('ioredis');
const {
  check, equal, followers, guarded, keys, kill, leader, nodes, pause, paused, rejects, untilDone,
} = require('./check.js');

// A check with a cluster that starts from `port`; troubles are what ioredis reports on the side.
function checkCluster(port, claim, test) {
  return check(claim, async () => {
    const troubles = [];
    const cluster = new Redis.Cluster([{ host: '127.0.0.1', port }]);
    cluster.on('error', (error) => troubles.push(error.message));
    cluster.on('node error', (error, node) => troubles.push(`${node}: ${error.message}`));
    try {
      await test(cluster, troubles);
    } finally {
      cluster.disconnect();
    }
  });
}

async function currentLeader() {
  const node = new Redis(followers[0], '127.0.0.1');
  try {
    const [[, , [, port]]] = await node.cluster('SLOTS');
    return port;
  } finally {
    node.disconnect();
  }
}

async function main() {
  for (const [i, port] of nodes.entries()) {
    const start = i === 0 ? 'the leader' : `follower ${i}`;
    await checkCluster(port, `100 keys, with ${start} to start from`, async (cluster, troubles) => {
      const mine = keys(`jsc:${port}`, 100);
      equal(await Promise.all(mine.map((key) => cluster.set(key, key))), mine.map(() => 'OK'));
      equal(await Promise.all(mine.map((key) => cluster.get(key))), mine);
      equal(await cluster.exists(mine[0]), 1);
      equal(await cluster.del(mine[0]), 1);
      equal(await cluster.get(mine[0]), null);
      equal(troubles, []);
    });
  }

  await checkCluster(followers[0], 'it knows one master and two replicas', async (cluster) => {
    await cluster.ping();
    const ports = (role) => cluster.nodes(role).map((node) => node.options.port).sort();
    equal(ports('master'), [leader]);
    equal(ports('slave'), [...followers].sort());
  });

  await checkCluster(followers[1], 'a pipeline', async (cluster) => {
    const pipeline = cluster.pipeline();
    keys('jsc', 100).forEach((key) => pipeline.set(key, key).get(key));
    equal(await pipeline.exec(), keys('jsc', 100).flatMap((key) => [[null, 'OK'], [null, key]]));
  });

  await checkCluster(followers[0], 'errors are rejected, not retried', async (cluster) => {
    await rejects(cluster.set('jsc:a', 'v'.repeat(65537)), 'ERR value too large');
    await rejects(cluster.multi().set('jsc:multi', '1').call('INCR', 'jsc:multi', 'x').exec(),
      'EXECABORT');
    equal(await cluster.get('jsc:multi'), null);
  });

  await checkCluster(followers[1], 'a transaction', async (cluster) => {
    const replies = await cluster.multi().set('jsc:{t}:a', '1').incr('jsc:{t}:a').exec();
    equal(replies, [[null, 'OK'], [null, 2]]);
  });

  await check('a password and TLS, by the address that the cluster names for it', async () => {
    const redisOptions = { password: guarded.password, tls: guarded.tls() };
    const cluster = new Redis.Cluster([{ host: '127.0.0.1', port: guarded.tlsPort }], { redisOptions });
    try {
      equal(await cluster.get('guarded'), 'yes');
      equal(cluster.nodes().map((node) => node.options.port), [guarded.tlsPort]);
    } finally {
      cluster.disconnect();
    }
  });

  const standStill = 'nothing is acknowledged while two nodes stand still; then the client goes on';
  await checkCluster(followers[0], standStill, async (cluster) => {
    await cluster.set('jsc:before', '1');
    await paused([leader, followers[1]], async () => {
      const answer = cluster.set('jsc:meanwhile', '1').catch((error) => error.message);
      equal(await Promise.race([answer, pause(1500).then(() => 'none yet')]), 'none yet');
    });
    equal(await untilDone(() => cluster.set('jsc:after', '1')), 'OK');
    equal(await cluster.get('jsc:before'), '1');
  });

  // The node that dies is the only one that ioredis was told of: it has to keep those it found.
  const leads = await untilDone(currentLeader);
  const killed = 'after kill -9 of the leader the same client goes on, and finds all it wrote';
  await checkCluster(leads, killed, async (cluster) => {
    const all = keys('jsc:kill', 200);
    for (const key of all.slice(0, 100)) equal(await cluster.set(key, key), 'OK');
    kill(leads);
    for (const key of all.slice(100)) equal(await untilDone(() => cluster.set(key, key)), 'OK');
    equal(await Promise.all(all.map((key) => cluster.get(key))), all);
  });
}

main();
