// node-redis (its package @redis/client), which speaks RESP3: one connection, and a cluster.
'use strict';

const { createClient, createCluster } = require('@redis/client');
const { check, equal, guarded, keys, kill, leader, nodes, rejects, untilDone } = require('./check.js');

const url = (port) => `redis://127.0.0.1:${port}`;

// A check with a client, or a cluster; troubles are what node-redis reports on the side.
function checkWith(client, claim, test) {
  return check(claim, async () => {
    const troubles = [];
    client.on('error', (error) => troubles.push(error.message));
    await client.connect();
    try {
      await test(client, troubles);
    } finally {
      client.destroy();
    }
  });
}

const checkClient = (...rest) => checkWith(createClient({ url: url(leader), RESP: 3 }), ...rest);
const checkCluster = (ports, ...rest) => {
  const rootNodes = ports.map((port) => ({ url: url(port) }));
  return checkWith(createCluster({ rootNodes, RESP: 3 }), ...rest);
};

async function main() {
  await checkClient('PING, SET, GET, DEL, EXISTS', async (client, troubles) => {
    equal(await client.ping(), 'PONG');
    equal(await client.set('nr:a', '1'), 'OK');
    equal(await client.get('nr:a'), '1');
    equal(await client.exists(['nr:a', 'nr:a', 'nr:none']), 2);
    equal(await client.del(['nr:a', 'nr:none']), 1);
    equal(await client.get('nr:a'), null);
    equal((await client.sendCommand(['CLIENT', 'INFO'])).includes(' resp=3 '), true);
    equal(troubles, []);
  });

  await checkClient('multi() is all or nothing, execAsPipeline() works', async (client) => {
    equal(await client.multi().set('nr:multi', '1').incr('nr:multi').exec(), ['OK', 2]);
    const wrong = client.multi().set('nr:multi', '9').addCommand(['INCR']).exec();
    await rejects(wrong, "ERR wrong number of arguments for 'incr' command");
    equal(await client.get('nr:multi'), '2');
    equal(await client.multi().set('nr:b', '1').get('nr:b').execAsPipeline(), ['OK', '1']);
  });

  await checkClient('a watched key that was changed makes exec() reject', async (client) => {
    await client.watch('nr:multi');
    await client.incr('nr:multi');
    await rejects(client.multi().set('nr:multi', '9').exec(), 'One (or more) of the watched keys');
    equal(await client.get('nr:multi'), '3');
  });

  await checkClient('strings, keys, and times to live', async (client) => {
    equal(await client.set('nr:s', 'v', { expiration: { type: 'EX', value: 100 }, condition: 'NX' }), 'OK');
    equal(await client.mSet({ 'nr:m': '1', 'nr:n': '2' }), 'OK');
    equal(await client.mGet(['nr:m', 'nr:n', 'nr:none']), ['1', '2', null]);
    equal(await client.incrByFloat('nr:m', 0.5), '1.5');
    equal(await client.append('nr:n', '3'), 2);
    equal(await client.expireAt('nr:s', 4102444800), 1);
    equal(await client.expireTime('nr:s'), 4102444800);
    equal(await client.persist('nr:s'), 1);
    equal(await client.rename('nr:s', 'nr:t'), 'OK');
    equal(await client.copy('nr:t', 'nr:s'), 1);
    equal(await client.getDel('nr:t'), 'v');
    const found = new Set();
    for await (const some of client.scanIterator({ MATCH: 'nr:[mns]', COUNT: 5 })) {
      some.forEach((key) => found.add(key));
    }
    equal([...found].sort(), ['nr:m', 'nr:n', 'nr:s']);
  });

  await checkClient('errors are rejected, and the connection goes on', async (client, troubles) => {
    await rejects(client.set('nr:a', 'v'.repeat(65537)), 'ERR value too large');
    await rejects(client.sendCommand(['NOPE', 'x']), "ERR unknown command 'NOPE'");
    equal(await client.ping(), 'PONG');
    equal(troubles, []);
  });

  for (const [i, port] of nodes.entries()) {
    const start = i === 0 ? 'the leader' : `follower ${i}`;
    await checkCluster([port], `cluster: 100 keys, from ${start}`, async (cluster, troubles) => {
      const mine = keys(`nrc:${port}`, 100);
      equal(await Promise.all(mine.map((key) => cluster.set(key, key))), mine.map(() => 'OK'));
      equal(await Promise.all(mine.map((key) => cluster.get(key))), mine);
      equal(troubles, []);
    });
  }

  const { password, tlsPort } = guarded;
  await check('a password: nothing is served without it', async () => {
    const stranger = createClient({ url: url(guarded.port), socket: { reconnectStrategy: false } });
    stranger.on('error', () => {});
    const asked = stranger.connect().then(() => stranger.get('guarded'));
    const error = await asked.then(() => null, (reason) => reason);
    stranger.destroy();
    equal(/NOAUTH/.test(String(error)), true);
  });
  const known = createClient({ url: url(guarded.port), password, RESP: 3 });
  await checkWith(known, 'a password: with it all is served', async (client) => {
    equal(await client.get('guarded'), 'yes');
  });
  const throughTls = (tls) => createClient({
    RESP: 3, password,
    socket: { host: '127.0.0.1', port: tlsPort, tls: true, reconnectStrategy: false, ...tls },
  });
  await checkWith(throughTls(guarded.tls()), 'TLS: 1,000 commands at once', async (client) => {
    const mine = keys('nr:tls', 500);
    equal(await Promise.all(mine.map((key) => client.set(key, key))), mine.map(() => 'OK'));
    equal(await Promise.all(mine.map((key) => client.get(key))), mine);
  });
  await check('TLS: a node of another authority is refused', async () => {
    const client = throughTls({ ...guarded.tls(), ca: guarded.otherAuthority() });
    client.on('error', () => {});
    const error = await client.connect().then(() => null, (reason) => reason);
    client.destroy();
    equal(/certificate/.test(String(error)), true);
  });
  const guardedCluster = createCluster({
    rootNodes: [{ socket: { host: '127.0.0.1', port: tlsPort, tls: true, ...guarded.tls() } }],
    defaults: { password, socket: { tls: true, ...guarded.tls() } },
    RESP: 3,
  });
  await checkWith(guardedCluster, 'cluster: a password and TLS', async (cluster) => {
    equal(await cluster.get('guarded'), 'yes');
  });

  // Unlike ioredis it reads the topology again from its root nodes only: one of them has to live.
  const killed = 'cluster: after kill -9 of the leader the same client goes on';
  await checkCluster(nodes, killed, async (cluster) => {
    const all = keys('nrc:kill', 200);
    for (const key of all.slice(0, 100)) equal(await cluster.set(key, key), 'OK');
    kill(leader);
    for (const key of all.slice(100)) equal(await untilDone(() => cluster.set(key, key)), 'OK');
    equal(await Promise.all(all.map((key) => cluster.get(key))), all);
  });
}

main();
