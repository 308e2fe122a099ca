// ioredis, one connection to the leader; it speaks RESP3 when the server does.
'use strict';

const Redis = require('ioredis');
const { check, equal, followers, leader, rejects } = require('./check.js');

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

  await check('multi() is rejected, and nothing of it is applied', async () => {
    await client.del('js:multi');
    await rejects(client.multi().set('js:multi', '1').del('js:large').exec(), 'EXECABORT');
    equal(await client.exists('js:multi', 'js:large'), 1);
    equal(await client.set('js:multi', '2'), 'OK');
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

  await check('one connection for all of this, and QUIT ends it', async () => {
    equal(troubles, []);
    equal(await client.quit(), 'OK');
  });
}

main();
