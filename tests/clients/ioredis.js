// ioredis, one connection to the leader; it speaks RESP3 when the server does.
'use strict';

const Redis = require('ioredis');
const { check, equal, followers, guarded, leader, rejects } = require('./check.js');

const troubles = [];
const client = new Redis(leader, '127.0.0.1', { connectionName: 'js-test' });
client.on('error', (error) => troubles.push(error.message));
client.on('reconnecting', () => troubles.push('reconnecting'));

async function main() {
  await check('connects with HELLO 3, CLIENT SETNAME and SETINFO', async () => {
    equal(await client.ping(), 'PONG');
    const line = await client.client('INFO');
    for (const field of [' resp=3 ', ' name=js-test ', ' lib-name=ioredis ']) {
      if (!line.includes(field)) throw new Error(`no ${field} in ${line}`);
    }
  });

  await check('SET, GET, DEL, EXISTS', async () => {
    equal(await client.set('js:a', '1'), 'OK');
    equal(await client.get('js:a'), '1');
    equal(await client.exists('js:a', 'js:a', 'js:none'), 2);
    equal(await client.del('js:a', 'js:none'), 1);
    equal(await client.get('js:a'), null);
  });

  await check('any bytes as a value, and the largest value', async () => {
    const bytes = Buffer.from(Array.from({ length: 65536 }, (_, i) => i % 256));
    await client.set('js:large', bytes);
    equal(await client.getBuffer('js:large'), bytes);
  });

  await check('errors are ReplyError, and the connection goes on', async () => {
    await rejects(client.set('k'.repeat(257), '1'), 'ERR key too large');
    await rejects(client.set('js:a', 'v'.repeat(65537)), 'ERR value too large');
    await rejects(client.call('NOPE', 'x'), "ERR unknown command 'NOPE', with args beginning");
    await rejects(client.call('GET'), "ERR wrong number of arguments for 'get' command");
    equal(await client.ping(), 'PONG');
  });

  await check('a pipeline keeps the order', async () => {
    const pipeline = client.pipeline();
    const expected = [];
    for (let i = 0; i < 500; i++) {
      pipeline.set(`js:${i}`, i).get(`js:${i}`);
      expected.push([null, 'OK'], [null, String(i)]);
    }
    equal(await pipeline.exec(), expected);
  });

  await check('multi() is all or nothing', async () => {
    await client.del('js:multi');
    const replies = await client.multi().set('js:multi', '1').incr('js:multi').del('js:large').exec();
    equal(replies, [[null, 'OK'], [null, 2], [null, 1]]);
    await rejects(client.multi().set('js:multi', '9').call('INCR').exec(), 'EXECABORT');
    equal(await client.get('js:multi'), '2');
  });

  await check('a watched key that was changed makes exec() null', async () => {
    const other = new Redis(leader, '127.0.0.1');
    await client.watch('js:multi');
    await other.incr('js:multi');
    equal(await client.multi().set('js:multi', '9').exec(), null);
    await client.watch('js:multi');
    equal(await client.multi().incr('js:multi').exec(), [[null, 4]]);
    other.disconnect();
  });

  await check('strings, keys, and times to live', async () => {
    equal(await client.set('js:s', 'v', 'EX', 100, 'GET'), null);
    equal(await client.mset('js:m', '1', 'js:n', '2'), 'OK');
    equal(await client.mget('js:m', 'js:n', 'js:none'), ['1', '2', null]);
    equal(await client.incrbyfloat('js:m', 0.5), '1.5');
    equal(await client.append('js:n', '3'), 2);
    equal(await client.getrange('js:n', 1, -1), '3');
    equal(await client.expireat('js:s', 4102444800), 1);
    equal(await client.expiretime('js:s'), 4102444800);
    equal(await client.persist('js:s'), 1);
    equal(await client.ttl('js:s'), -1);
    equal(await client.rename('js:s', 'js:t'), 'OK');
    equal(await client.copy('js:t', 'js:s'), 1);
    equal(await client.getdel('js:t'), 'v');
    equal(await client.type('js:s'), 'string');
    await rejects(client.rename('js:none', 'js:t'), 'ERR no such key');
  });

  await check('scanStream finds each key', async () => {
    await client.mset(...Array.from({ length: 200 }, (_, i) => [`js:scan:${i}`, i]).flat());
    const found = new Set();
    for await (const some of client.scanStream({ match: 'js:scan:*', count: 9 })) {
      some.forEach((key) => found.add(key));
    }
    equal(found.size, 200);
  });

  await check('a follower rejects with MOVED and the leader\'s address', async () => {
    const follower = new Redis(followers[0], '127.0.0.1');
    const slot = await follower.cluster('KEYSLOT', 'js:a');
    await rejects(follower.get('js:a'), `MOVED ${slot} 127.0.0.1:${leader}`);
    follower.disconnect();
  });

  await check('RESP2 when asked for', async () => {
    const old = new Redis(leader, '127.0.0.1', { protocol: 2 });
    equal(await old.set('js:a', '2'), 'OK');
    equal(/ resp=(\d)/.exec(await old.client('INFO'))[1], '2');
    old.disconnect();
  });

  await check('a password, and TLS: only with the right ones', async () => {
    const { password, port, tlsPort } = guarded;
    const options = { lazyConnect: true, retryStrategy: null, maxRetriesPerRequest: 0 };
    const connected = async (to, more, then) => {
      const redis = new Redis(to, '127.0.0.1', { ...options, ...more });
      const troubles = [];
      redis.on('error', (error) => troubles.push(error.message));
      try {
        await redis.connect().catch(() => {});
        await then(redis, troubles);
      } finally {
        redis.disconnect();
      }
    };
    await connected(port, {}, async (redis, said) => {
      await rejects(redis.get('guarded'), '');
      equal(said.some((text) => text.startsWith('NOAUTH')), true);
    });
    await connected(port, { password }, async (redis) => equal(await redis.get('guarded'), 'yes'));
    await connected(tlsPort, { password, tls: guarded.tls() }, async (redis) => {
      const pipeline = redis.pipeline();
      for (let i = 0; i < 500; i += 1) pipeline.set(`js:${i}`, i).get(`js:${i}`);
      const replies = (await pipeline.exec()).map(([, reply]) => reply);
      equal(replies, Array.from({ length: 1000 }, (_, i) => (i % 2 ? String((i - 1) / 2) : 'OK')));
    });
    const strange = { ...guarded.tls(), ca: guarded.otherAuthority() };
    await connected(tlsPort, { password, tls: strange }, async (redis, said) => {
      await rejects(redis.get('guarded'), '');
      equal(said.some((text) => /certificate/.test(text)), true);
    });
  });

  await check('one connection for all of this, and QUIT ends it', async () => {
    equal(troubles, []);
    equal(await client.quit(), 'OK');
  });
}

main();
