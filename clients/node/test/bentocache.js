// bentocache.js: the L2 driver, under bentocache as it is.
import { uncacheDriver, request } from '../src/bentocache.js'
import { assert, test } from './tap.js'
import { env, libraries, sleep, until, versionOf } from './servers.js'
import { db, nameOf, newTable, session } from './setup.js'
import { pathToFileURL } from 'node:url'

// bentocache has no CommonJS form.
const { BentoCache, bentostore } = await import(
  pathToFileURL(`${env.WORK}/node_modules/bentocache/build/index.js`)
)

await newTable('bento', 3, 'bentocache:bento:{id}')
const read = nameOf(db, 'bento')
const rename = (name, id = 1) => db.query('UPDATE bento SET name = $2 WHERE id = $1', [id, name])
const version = `bentocache ${versionOf('bentocache')}`

async function withCache (run, { redis = 'ioredis6', ...options } = {}) {
  await db.query(
    "UPDATE bento SET name = 'first'; SELECT uncache.invalidate_keys('bentocache:bento:1')"
  )
  await db.query('SELECT uncache.wait()')
  const { client, end } = await libraries[redis]()
  const driver = uncacheDriver({
    redis: client,
    db,
    ttlMs: 60_000,
    fenced: ['bentocache:bento:'],
    redisTimeoutMs: 2000
  })
  const cache = new BentoCache({
    default: 'redis',
    stores: { redis: bentostore(options).useL2Layer(driver) }
  })
  const get = (load, more) =>
    request(db, () => cache.getOrSet({ key: 'bento:1', factory: load, ttl: '1m', ...more }))
  try {
    await run({ cache, get, store: driver.store, client })
  } finally {
    await cache.disconnect()
    end()
  }
}

for (const redis of ['ioredis6', 'redis6']) {
  test(`${version}, ${redis}: getOrSet is a fenced fill`, () =>
    withCache(
      async ({ get, store }) => {
        assert.equal(await get(() => read(1)), 'first')
        assert.equal(await get(() => assert.fail()), 'first')
        await rename('second')
        assert.equal(await get(() => read(1)), 'second')
        assert.deepEqual([store.counters.stored, store.counters.unfenced], [2, 0])
      },
      { redis }
    ))
}

test(`${version}: a reader that is slower than a writer does not store`, () =>
  withCache(async ({ get, store }) => {
    assert.equal(
      await get(async () => {
        const name = await read(1)
        await rename('second')
        return name
      }),
      'first'
    )
    assert.deepEqual([store.counters.stored, store.counters.refused], [0, 1])
    assert.equal(await get(() => read(1)), 'second')
  }))

test(`${version}: a namespace, has, delete, pull and clear`, () =>
  withCache(async ({ cache }) => {
    const users = cache.namespace('users')
    await users.set({ key: '1', value: 'x' })
    assert.equal(await users.has({ key: '1' }), true)
    assert.equal(await users.get({ key: '1' }), 'x')
    assert.equal(await users.pull('1'), 'x')
    assert.equal(await users.get({ key: '1' }), undefined)
    await users.set({ key: '2', value: 'y' })
    await users.deleteMany({ keys: ['2', '3'] })
    assert.equal(await users.has({ key: '2' }), false)
    await users.set({ key: '4', value: 'z' })
    await cache.set({ key: 'other', value: 'kept' })
    await users.clear()
    assert.equal(await users.has({ key: '4' }), false)
    assert.equal(await cache.get({ key: 'other' }), 'kept')
  }))

test(`${version}: a tag puts fenced entries to rest, and they are filled again`, () =>
  withCache(async ({ cache, get, client, store }) => {
    let loads = 0
    const tagged = () =>
      get(
        () => {
          loads++
          return read(1)
        },
        { tags: ['people'] }
      )
    await tagged()
    await tagged()
    assert.equal(loads, 1)
    await sleep(2) // the tag's moment must be a later one than the entry's
    await cache.deleteByTag({ tags: ['people'] })
    assert.ok(
      await client.get('bentocache:___bc:t:people'),
      'the moment is where docs/names.md says'
    )
    await until('a hit after the tag', async () => {
      const before = loads
      await tagged()
      return loads === before
    })
    assert.ok(loads <= 3, `${loads} loads`)
    assert.equal(store.counters.plain, 1)
  }))

test(`${version}: deleting a tag's moment revives what it put to rest`, () =>
  withCache(async ({ cache, client }) => {
    await cache.set({ key: 'plain', value: 'old', tags: ['revived'], ttl: '1m' })
    await sleep(2)
    await cache.deleteByTag({ tags: ['revived'] })
    await client.unlink('bentocache:___bc:t:revived')
    assert.equal(await cache.get({ key: 'plain' }), 'old')
  }))

test(`${version}: in its grace period an entry is made again behind, by a fence`, () =>
  withCache(async ({ get, store }) => {
    const grace = { ttl: 30, grace: '1m' }
    assert.equal(await get(() => read(1), grace), 'first')
    await until(
      'the new entry',
      async () =>
        (await get(async () => 'made again', grace)) === 'made again' && store.counters.stored > 1
    )
    assert.equal(store.counters.unfenced, 0)
    await sleep(40)
    assert.equal(
      await get(() => {
        throw new Error('no')
      }, grace),
      'made again'
    )
  }))

test(`${version}: a text that can't be decoded is a miss, and is replaced`, () =>
  withCache(async ({ get, client }) => {
    await client.set('bentocache:bento:1', '{"val')
    assert.equal(await get(() => read(1)), 'first')
    assert.equal(await get(() => assert.fail()), 'first')
  }))

test(`${version}: inside a transaction that has written nothing is stored`, () =>
  withCache(async ({ cache, store }) => {
    const value = await session(async tx => {
      await tx.query('BEGIN')
      return request(tx, () =>
        cache.getOrSet({
          key: 'bento:1',
          factory: async () => {
            await tx.query("UPDATE bento SET name = 'mine' WHERE id = 1")
            return nameOf(tx, 'bento')(1)
          }
        })
      )
    })
    assert.equal(value, 'mine')
    assert.deepEqual([store.counters.stored, store.counters.unfenced], [0, 1])
  }))
