// keyv.js: the Keyv store, under Keyv, cacheable and cache-manager as they are.
import { KeyvUncache, request } from '../src/keyv.js'
import { assert, test } from './tap.js'
import { libraries, library, pool, sleep, versionOf } from './servers.js'
import { callsOf, db, nameOf, newTable, session, watched } from './setup.js'

// Keyv 5 puts its namespace "keyv" before a key, unless told; Keyv 6 puts nothing.
await newTable('kv', 3, 'keyv:kv:{id}', 'kv:{id}')
const read = nameOf(db, 'kv')
const rename = (name, id = 1) => db.query('UPDATE kv SET name = $2 WHERE id = $1', [id, name])
const keyvs = Object.fromEntries(
  [
    ['keyv5', 'keyv:'],
    ['keyv6', '']
  ].map(([name, before]) => [`keyv ${versionOf(name)}`, { Keyv: library(name).Keyv, before }])
)

async function withStore (run, redis = 'ioredis6') {
  await db.query("UPDATE kv SET name = 'first'")
  await db.query(`SELECT uncache.invalidate_keys(VARIADIC array_agg(before || 'kv:' || i))
    FROM generate_series(1, 3) i, unnest(ARRAY['', 'keyv:']) before`)
  await db.query('SELECT uncache.wait()')
  const { client, end } = await libraries[redis]()
  const reasons = []
  const store = new KeyvUncache(client, {
    db,
    ttlMs: 60_000,
    fenced: ['keyv:kv:', 'kv:'],
    redisTimeoutMs: 2000,
    onEvent: event => {
      if (event.type === 'unfenced') reasons.push(event.reason)
    }
  })
  try {
    await run(store, client, reasons)
  } finally {
    store.close()
    end()
  }
}

// What an application has: it knows nothing of a fence.
async function cached (cache, id, load = read) {
  let name = await cache.get(`kv:${id}`)
  if (name === undefined) {
    name = await load(id)
    await cache.set(`kv:${id}`, name)
  }
  return name
}

// Written before the miss, between miss and set, and rolled back before the set.
async function threeWrites (cache, tx, connection) {
  const mine = nameOf(tx, 'kv')
  const write = () => tx.query("UPDATE kv SET name = 'mine' WHERE id = 1")
  await tx.query('BEGIN')
  await write()
  assert.equal(await request(connection, () => cached(cache, 1, mine)), 'mine')
  await tx.query('ROLLBACK; BEGIN')
  await request(connection, () =>
    cached(cache, 1, async id => {
      await write()
      return mine(id)
    })
  )
  await tx.query('ROLLBACK; BEGIN')
  await request(connection, () =>
    cached(cache, 1, async id => {
      await write()
      const name = await mine(id)
      await tx.query('ROLLBACK')
      return name
    })
  )
}

for (const [version, { Keyv, before }] of Object.entries(keyvs)) {
  for (const redis of ['ioredis6', 'ioredis5', 'redis6', 'redis5']) {
    test(`${version}, ${redis}: a get and a set of an application are a fenced fill`, () =>
      withStore(async (store, client) => {
        const cache = new Keyv({ store })
        assert.equal(await request(db, () => cached(cache, 1)), 'first')
        assert.equal(await request(db, () => cached(cache, 1, () => assert.fail())), 'first')
        assert.equal(JSON.parse(await client.get(`${before}kv:1`)).value, 'first')
        await rename('second')
        assert.equal(await request(db, () => cached(cache, 1)), 'second')
        assert.deepEqual([store.counters.stored, store.counters.hit], [2, 1])
      }, redis))
  }

  test(`${version}: a reader that is slower than a writer does not store`, () =>
    withStore(async (store, client) => {
      const cache = new Keyv({ store })
      const late = async id => {
        const name = await read(id)
        await rename('second')
        return name
      }
      assert.equal(await request(db, () => cached(cache, 1, late)), 'first')
      assert.equal(await client.get(`${before}kv:1`), null)
      assert.equal(store.counters.refused, 1)
    }))

  test(`${version}: what a transaction that has written has read is not stored`, () =>
    withStore(async (store, client, reasons) => {
      const cache = new Keyv({ store })
      // The connection may be a Client of pg, or a function.
      const ways = [tx => tx, tx => (text, parameters) => tx.query(text, parameters)]
      for (const way of ways) await session(tx => threeWrites(cache, tx, way(tx)))
      assert.equal(await client.get(`${before}kv:1`), null)
      assert.equal(store.counters.stored, 0)
      for (const i of [0, 3]) {
        assert.match(reasons[i], /has not missed/)
        assert.match(reasons[i + 1], /has written/)
        assert.match(reasons[i + 2], /has ended/)
      }
    }))

  test(`${version}: a connection of its own stores, in a transaction that reads and in none`, () =>
    withStore(async store => {
      const cache = new Keyv({ store })
      await session(async tx => {
        await request(tx, () => cached(cache, 1, nameOf(tx, 'kv')))
        await tx.query('BEGIN')
        await request(tx, () => cached(cache, 2, nameOf(tx, 'kv')))
        const query = (text, parameters) => tx.query(text, parameters)
        await request(query, () => cached(cache, 3, nameOf(tx, 'kv')))
      })
      assert.equal(store.counters.stored, 3)
    }))

  test(`${version}: a ready value, or one outside of a request, is not stored`, () =>
    withStore(async (store, client, reasons) => {
      const cache = new Keyv({ store })
      await request(db, () => cache.set('kv:1', 'ready'))
      await cached(cache, 2)
      assert.equal(await client.get(`${before}kv:1`), null)
      assert.equal(await client.get(`${before}kv:2`), null)
      assert.match(reasons[0], /has not missed/)
      assert.match(reasons[1], /no request\(\)/)
    }))

  test(`${version}: other prefixes are stored plainly, and counted`, () =>
    withStore(async (store, client) => {
      const cache = new Keyv({ store })
      await cache.set('session:1', { user: 1 }, 60_000)
      assert.deepEqual(await cache.get('session:1'), { user: 1 })
      const left = await client.pttl(`${before}session:1`)
      assert.ok(left > 50_000 && left <= 60_000, `${left} ms`)
      assert.equal(store.counters.plain, 1)
      assert.equal(await cache.delete('session:1'), true)
      assert.equal(await cache.has('session:1'), false)
    }))

  test(`${version}: two requests that miss a key use a snapshot of their own each`, () =>
    withStore(async store => {
      const cache = new Keyv({ store })
      let goOn
      const held = new Promise(resolve => {
        goOn = resolve
      })
      const slow = request(db, () =>
        cached(cache, 1, async id => {
          const name = await read(id)
          await held
          return name
        })
      )
      await sleep(50)
      await rename('second')
      // It misses, too, and takes a younger snapshot.
      await request(db, () => cache.get('kv:1'))
      goOn()
      assert.equal(await slow, 'first')
      assert.deepEqual([store.counters.stored, store.counters.refused], [0, 1])
    }))

  test(`${version}: a text that can't be decoded is a miss, and is replaced`, () =>
    withStore(async (store, client) => {
      const cache = new Keyv({ store })
      await client.set(`${before}kv:1`, '{"value":"fir')
      assert.equal(await request(db, () => cached(cache, 1)), 'first')
      assert.equal(JSON.parse(await client.get(`${before}kv:1`)).value, 'first')
    }))

  test(`${version}: many keys take one MGET and one snapshot, and one more when they are set`, () =>
    withStore(async (store, client) => {
      const cache = new Keyv({ store })
      const asked = watched(db)
      const mgets = await callsOf(client, 'mget')
      await request(asked, async () => {
        assert.deepEqual(await cache.get(['kv:1', 'kv:2']), [undefined, undefined])
        await cache.setMany([
          { key: 'kv:1', value: 'a' },
          { key: 'kv:2', value: 'b' }
        ])
      })
      assert.equal(asked.seen.length, 2)
      assert.deepEqual(await cache.get(['kv:1', 'kv:2']), ['a', 'b'])
      assert.equal((await callsOf(client, 'mget')) - mgets, 2)
      assert.deepEqual([store.counters.stored, store.counters.hit], [2, 2])
      await cache.delete(['kv:1', 'kv:2'])
      assert.deepEqual(await cache.get(['kv:1', 'kv:2']), [undefined, undefined])
    }))

  test(`${version}: the first miss of a key counts for the whole request`, () =>
    withStore(async (store, client, reasons) => {
      const cache = new Keyv({ store })
      await session(tx =>
        request(tx, async () => {
          await tx.query('BEGIN')
          await cache.get('kv:1')
          await tx.query('COMMIT')
          await tx.query('BEGIN')
          await cached(cache, 1, nameOf(tx, 'kv'))
        })
      )
      assert.equal(store.counters.stored, 0)
      assert.match(reasons[0], /has ended/)
    }))

  test(`${version}: Dates, bytes and null come back as Keyv brings them back`, () =>
    withStore(async store => {
      const cache = new Keyv({ store })
      for (const [id, value] of [
        [1, Buffer.from([0, 255, 128])],
        [2, null],
        [3, { a: [1] }]
      ]) {
        await request(db, async () => {
          await cache.get(`kv:${id}`)
          await cache.set(`kv:${id}`, value)
        })
        const back = await cache.get(`kv:${id}`)
        // A later Keyv makes an array of bytes.
        if (id === 1) assert.deepEqual([...Buffer.from(back.data ?? back)], [0, 255, 128])
        else assert.deepEqual(back, value)
      }
      assert.equal(store.counters.stored, 3)
    }))

  test(`${version}: iterator() and clear() take the namespace and nothing else`, () =>
    withStore(async (store, client) => {
      const cache = new Keyv({ store, namespace: 'one' })
      await client.set('two:1', 'x', 'PX', 60_000)
      await cache.set('a', 1)
      const entries = []
      for await (const entry of cache.iterator('one')) entries.push(entry)
      assert.deepEqual(entries, [['a', 1]])
      await cache.clear()
      assert.equal(await cache.get('a'), undefined)
      assert.equal(await client.get('two:1'), 'x')
      await client.unlink('two:1')
    }))
}

test(`cacheable ${versionOf('cacheable')}: getOrSet is a fenced fill`, () =>
  withStore(async store => {
    const { Cacheable } = library('cacheable')
    const { Keyv } = library('keyv5')
    const cache = new Cacheable({ primary: new Keyv({ store }) })
    const get = load => request(db, () => cache.getOrSet('kv:1', load))
    assert.equal(await get(() => read(1)), 'first')
    assert.equal(await get(() => assert.fail()), 'first')
    await rename('second')
    assert.equal(
      await get(async () => {
        const name = await read(1)
        await rename('third')
        return name
      }),
      'second'
    )
    assert.equal(await get(() => read(1)), 'third')
    assert.deepEqual([store.counters.stored, store.counters.refused], [2, 1])
  }))

// A library's own single flight lets readers join a load from before a commit. What the store
// keeps is right all the same: this says how far the store reaches.
async function joins (wrap, store) {
  let goOn
  const held = new Promise(resolve => {
    goOn = resolve
  })
  const first = request(db, () =>
    wrap(async () => {
      const name = await read(1)
      await held
      return name
    })
  )
  await sleep(100)
  await rename('second')
  const joined = request(db, () => wrap(() => read(1)))
  await sleep(100)
  goOn()
  assert.equal(await first, 'first')
  assert.equal(await joined, 'first', 'it has joined')
  assert.equal(store.counters.stored, 0)
  assert.equal(await request(db, () => wrap(() => read(1))), 'second')
}

test(`cache-manager ${versionOf('cache-manager')}: wrap serves what it does not store`, () =>
  withStore(async store => {
    const { createCache } = library('cache-manager')
    const { Keyv } = library('keyv5')
    const cache = createCache({ stores: [new Keyv({ store })], ttl: 60_000 })
    await joins(load => cache.wrap('kv:1', load), store)
  }))

test(`cacheable ${versionOf('cacheable')}: getOrSet serves what it does not store`, () =>
  withStore(async store => {
    const { Cacheable } = library('cacheable')
    const { Keyv } = library('keyv5')
    const cache = new Cacheable({ primary: new Keyv({ store }) })
    await joins(load => cache.getOrSet('kv:1', load), store)
  }))

test(`cache-manager ${versionOf('cache-manager')}: get and set, and wrap, are fenced fills`, () =>
  withStore(async store => {
    const { createCache } = library('cache-manager')
    const { Keyv } = library('keyv5')
    const cache = createCache({ stores: [new Keyv({ store })], ttl: 60_000 })
    assert.equal(await request(db, () => cached(cache, 1)), 'first')
    assert.equal(await request(db, () => cache.wrap('kv:2', () => read(2))), 'first')
    assert.equal(await request(db, () => cache.wrap('kv:2', () => assert.fail())), 'first')
    assert.equal(store.counters.stored, 2)
  }))

test('a request of one connection ends with its work: what runs on behind stores nothing', () =>
  withStore(async (store, _, reasons) => {
    const behind = connection =>
      new Promise(resolve =>
        request(connection, async () => {
          await store.get('keyv:kv:1')
          sleep(20).then(() => resolve(store.set('keyv:kv:1', '"x"')))
        })
      )
    assert.equal(await session(behind), false)
    assert.match(reasons[0], /no request/)
    assert.equal(await behind(db), true, 'a pool has other connections')
  }))

test('a request whose database fails serves and stores nothing', () =>
  withStore(async store => {
    const broken = pool({ port: 1 })
    assert.equal(await request(broken, () => store.get('keyv:kv:1')), undefined)
    assert.equal(await request(broken, () => store.set('keyv:kv:1', '"x"')), false)
  }))

test('store.request() takes the database of the options', () =>
  withStore(async store => {
    await store.request(async () => {
      await store.get('keyv:kv:1')
      assert.equal(await store.set('keyv:kv:1', '"x"'), true)
    })
  }))
