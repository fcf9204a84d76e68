// names.js: what docs/names.md says of the libraries of Node, against what they write.
//
// Each row of its table "Node" names a way that is here, and the key that the way stores for the
// key "user:42" of the application.
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { KeyvUncache, request } from '../src/keyv.js'
import { uncacheDriver } from '../src/bentocache.js'
import { assert, test } from './tap.js'
import { env, libraries, library } from './servers.js'
import { db } from './setup.js'

const { BentoCache, bentostore } = await import(
  pathToFileURL(`${env.WORK}/node_modules/bentocache/build/index.js`)
)
const { redisDriver } = await import(
  pathToFileURL(`${env.WORK}/node_modules/bentocache/build/src/drivers/redis.js`)
)
const { default: KeyvRedis, createKeyv } = library('@keyv/redis')
const { Keyv: Keyv5 } = library('keyv5')
const { Keyv: Keyv6 } = library('keyv6')
const { Cacheable } = library('cacheable')
const { createCache } = library('cache-manager')

const page = readFileSync(new URL('../../../docs/names.md', import.meta.url), 'utf8')
const set = cache => cache.set('user:42', 'x', 60_000)
const bento = (driver, options) =>
  new BentoCache({
    default: 'one',
    stores: { one: bentostore(options).useL2Layer(driver) }
  })
const connection = { host: env.REDIS_HOST, port: Number(env.REDIS_PORT), db: Number(env.REDIS_DB) }
const closed = []
const theirs = () => {
  const store = new KeyvRedis(env.REDIS_URL)
  closed.push(() => store.disconnect())
  return store
}
const ours = client => new KeyvUncache(client, { ttlMs: 1000, fenced: [] })

// What stands in the page for each way -> the way.
const ways = {
  'keyv 5, `new Keyv({ store: new KeyvRedis(url) })`': () => set(new Keyv5({ store: theirs() })),
  "keyv 5, `new Keyv({ store: new KeyvRedis(url), namespace: 'app' })`": () =>
    set(new Keyv5({ store: theirs(), namespace: 'app' })),
  'keyv 5, `createKeyv(url)`': () => {
    const keyv = createKeyv(env.REDIS_URL)
    closed.push(() => keyv.disconnect())
    return set(keyv)
  },
  "keyv 5, `createKeyv(url, { namespace: 'app' })`": () => {
    const keyv = createKeyv(env.REDIS_URL, { namespace: 'app' })
    closed.push(() => keyv.disconnect())
    return set(keyv)
  },
  'keyv 5, `new Keyv({ store: new KeyvUncache(redis) })`': client =>
    set(new Keyv5({ store: ours(client) })),
  "keyv 5, `new Keyv({ store: new KeyvUncache(redis), namespace: 'app' })`": client =>
    set(new Keyv5({ store: ours(client), namespace: 'app' })),
  'keyv 6, `new Keyv({ store: new KeyvUncache(redis) })`': client =>
    set(new Keyv6({ store: ours(client) })),
  "keyv 6, `new Keyv({ store: new KeyvUncache(redis), namespace: 'app' })`": client =>
    set(new Keyv6({ store: ours(client), namespace: 'app' })),
  'cacheable, `new Cacheable({ primary: new Keyv({ store }) })`': client =>
    set(new Cacheable({ primary: new Keyv5({ store: ours(client) }) })),
  'cacheable, `new Cacheable({ secondary: new KeyvRedis(url) })`': () =>
    set(new Cacheable({ secondary: theirs() })),
  'cache-manager, `createCache({ stores: [new Keyv({ store: new KeyvRedis(url) })] })`': () =>
    set(createCache({ stores: [new Keyv5({ store: theirs() })] })),
  'cache-manager, `createCache({ stores: [createKeyv(url)] })`': () => {
    const keyv = createKeyv(env.REDIS_URL)
    closed.push(() => keyv.disconnect())
    return set(createCache({ stores: [keyv] }))
  },
  'bentocache, `redisDriver({ connection })` or `uncacheDriver({ redis })`': async client => {
    const made = bento(redisDriver({ connection }))
    closed.push(() => made.disconnect())
    await made.set({ key: 'user:42', value: 'x', ttl: '1m' })
    assert.equal(Number(await client.exists('bentocache:user:42')), 1)
    await client.unlink('bentocache:user:42')
    await bento(uncacheDriver({ redis: client, ttlMs: 1000, fenced: [] })).set({
      key: 'user:42',
      value: 'x',
      ttl: '1m'
    })
  },
  "bentocache, `.namespace('app')`": client =>
    bento(uncacheDriver({ redis: client, ttlMs: 1000, fenced: [] }))
      .namespace('app')
      .set({ key: 'user:42', value: 'x', ttl: '1m' }),
  "bentocache, `bentostore({ prefix: 'app' })`": client =>
    bento(uncacheDriver({ redis: client, ttlMs: 1000, fenced: [] }), { prefix: 'app' }).set({
      key: 'user:42',
      value: 'x',
      ttl: '1m'
    })
}

async function allKeys (client) {
  const names = await client.keys('*user:42*')
  return names.sort()
}

await db.query('DROP TABLE IF EXISTS named; CREATE TABLE named AS SELECT 42 AS id')

const rows = [...page.matchAll(/^\| (.+?) \| `([^`]+)` \| `([^`]+)` \|$/gm)].filter(([, way]) =>
  /^(keyv|cacheable|cache-manager|bentocache)/.test(way)
)

test('names: docs/names.md has a row for each way, and each row has a test', () => {
  assert.deepEqual(rows.map(([, way]) => way).sort(), Object.keys(ways).sort())
})

for (const [, way, key, template] of rows) {
  test(`names: ${way} stores under ${key}`, async () => {
    const { client, end } = await libraries.ioredis6()
    try {
      for (const name of await allKeys(client)) await client.unlink(name)
      await request(db, () => ways[way](client))
      assert.deepEqual(await allKeys(client), [key])
      const {
        rows: [{ keys }]
      } = await db.query('SELECT uncache.render($1, n) AS keys FROM named n', [template])
      assert.deepEqual(keys, [key], 'the template')
    } finally {
      for (const name of await allKeys(client)) await client.unlink(name)
      for (const close of closed.splice(0)) await close()
      end()
    }
  })
}
