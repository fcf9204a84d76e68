// clientside.js: the cache in the process of node-redis (CLIENT TRACKING, RESP3). The worker's
// deletes reach it as messages of Redis. How soon after COMMIT is it empty, what happens when the
// connection breaks, and, beside it, a map whose entries live for a second.
import { createServer, connect } from 'node:net'
import { Fence } from '../src/index.js'
import { assert, say, test } from './tap.js'
import { env, libraries, library, pool, sleep, until } from './servers.js'
import { db, nameOf, newTable } from './setup.js'

await newTable('near', 20, 'near:{id}')
const read = nameOf(db, 'near')

async function withCache (name, run, url = env.REDIS_URL) {
  const { BasicClientSideCache } = library(name)
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0, evictPolicy: 'LRU' })
  const { client, end } = await libraries[name]({ url, RESP: 3, clientSideCache: cache })
  const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 2000 })
  try {
    await run(fence, cache, client)
  } finally {
    fence.close()
    end()
  }
}

const fill = (fence, id) => fence.fetch(`near:${id}`, () => read(id))
const quantile = (times, q) => times.sort((a, b) => a - b)[Math.floor(times.length * q)].toFixed(2)

for (const name of ['redis6', 'redis5']) {
  test(`${name}: a hit of the cache in the process asks no Redis, and a commit empties it`, () =>
    withCache(name, async (fence, cache) => {
      await fill(fence, 1)
      await fill(fence, 1)
      const { hitCount } = cache.stats()
      for (let i = 0; i < 10; i++) assert.equal(await fill(fence, 1), 'first')
      assert.equal(cache.stats().hitCount - hitCount, 10)
      await db.query("UPDATE near SET name = 'second' WHERE id = 1")
      await until('the new value', async () => (await fill(fence, 1)) === 'second')
      await db.query("UPDATE near SET name = 'first' WHERE id = 1")
    }))

  for (const consistency of ['read_your_writes', 'eventual']) {
    test(`${name}: from COMMIT (${consistency}) to an empty cache in the process`, () =>
      withCache(name, async (fence, cache) => {
        const writer = pool({ max: 1, options: `-c uncache.consistency=${consistency}` })
        const times = []
        for (let i = 0; i < 200; i++) {
          const id = (i % 20) + 1
          await until('an entry', async () => {
            await fill(fence, id)
            return cache.size() > 0
          })
          await fill(fence, id)
          const emptied = new Promise(resolve => cache.once('invalidate', resolve))
          await writer.query('UPDATE near SET name = $2 WHERE id = $1', [id, `v${i}`])
          const committed = performance.now()
          await emptied
          times.push(performance.now() - committed)
        }
        say(
          `${name}, ${consistency}: from COMMIT to an empty L1: p50 ${quantile(times, 0.5)} ms, ` +
            `p99 ${quantile(times, 0.99)} ms, of ${times.length}`
        )
        await db.query("UPDATE near SET name = 'first'")
      }))
  }

  test(`${name}: bytes that are not UTF-8 are read from Redis, and come back as they were`, () =>
    withCache(name, async (_, cache, client) => {
      const bytes = Buffer.from([0, 255, 128, 65])
      const fence = new Fence(client, {
        db,
        ttlMs: 60_000,
        redisTimeoutMs: 2000,
        encode: b => b,
        decode: b => b
      })
      for (const load of [() => bytes, () => assert.fail(), () => assert.fail()]) {
        assert.deepEqual(await fence.fetch('near:20', load), bytes)
      }
      await db.query("SELECT uncache.invalidate_keys('near:20')")
      fence.close()
    }))

  test(`${name}: when the connection breaks the cache in the process is emptied`, async () => {
    const sockets = new Set()
    const proxy = createServer(socket => {
      const to = connect(Number(env.REDIS_PORT), env.REDIS_HOST)
      for (const one of [socket, to]) sockets.add(one.on('error', () => {}))
      socket.pipe(to).pipe(socket)
    }).listen(0)
    await new Promise(resolve => proxy.once('listening', resolve))
    const url = `redis://127.0.0.1:${proxy.address().port}/${env.REDIS_DB}`
    await withCache(
      name,
      async (fence, cache) => {
        await fill(fence, 2)
        await fill(fence, 2)
        assert.equal(await fill(fence, 2), 'first')
        for (const socket of sockets) socket.destroy()
        // What was invalidated meanwhile is told to nobody.
        await db.query("UPDATE near SET name = 'second' WHERE id = 2")
        await until('Redis', () => !fence.isAway)
        await until('the new value', async () => (await fill(fence, 2)) === 'second', 10)
        await db.query("UPDATE near SET name = 'first' WHERE id = 2")
      },
      url
    )
    proxy.close()
  })
}

test('a map with a TTL of a second serves old values, the cache that Redis empties few', () =>
  withCache('redis6', async fence => {
    const map = new Map()
    const mapped = async () => {
      const entry = map.get('near:3')
      if (entry?.until > Date.now()) return entry.name
      const name = await read(3)
      map.set('near:3', { name, until: Date.now() + 1000 })
      return name
    }
    const stale = { map: 0, tracked: 0 }
    const reads = 200
    let newest = 'first'
    for (let i = 0; i < reads; i++) {
      newest = `v${i}`
      await db.query('UPDATE near SET name = $1 WHERE id = 3', [newest])
      await sleep(2) // Redis' message has arrived, as a rule
      if ((await mapped()) !== newest) stale.map++
      if ((await fill(fence, 3)) !== newest) stale.tracked++
    }
    say(
      `read 2 ms after a commit, of a hot key: a map of 1 s ${(100 * stale.map) / reads} % ` +
        `old, the cache that Redis empties ${(stale.tracked / reads) * 100} %`
    )
    assert.ok(stale.map > reads / 2)
    assert.ok(stale.tracked < stale.map)
  }))
