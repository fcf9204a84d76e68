// race.js: many sessions read and write the same rows through each way of the package at once, and
// through a plain cache beside them.
//
// A row has a version that only grows. A reader notes the newest version whose COMMIT has returned,
// reads, and has read stale if it got an older one. Readers pause between the database and the
// store, as busy ones do. Some writers write a version of a million, which readers of the same
// transaction may see, and roll it back: nobody else may ever see it.
import { Fence, request } from '../src/index.js'
import { KeyvUncache } from '../src/keyv.js'
import { uncacheDriver } from '../src/bentocache.js'
import { pathToFileURL } from 'node:url'
import { assert, say, test } from './tap.js'
import { env, libraries, library, onPgbouncer, onStandby, sleep } from './servers.js'
import { db } from './setup.js'

const SECONDS = Number(env.RACE_SECONDS)
const ROWS = 6
const WRITERS = 4
const DIRTY = 1_000_000
const standby = onStandby()
const bouncer = onPgbouncer()
const { BentoCache, bentostore } = await import(
  pathToFileURL(`${env.WORK}/node_modules/bentocache/build/index.js`)
)

await db.query(
  'DROP TABLE IF EXISTS race; CREATE TABLE race (id int PRIMARY KEY, version int NOT NULL)'
)
await db.query(`SELECT uncache.attach('race', 'plain:{id}', 'io:{id}', 'nr:{id}', 'sql:{id}',
  'tx:{id}', 'many:{id}', 'rr:{id}', 'sb:{id}', 'pb:{id}', 'lease:{id}', 'keyv:race:{id}',
  'bentocache:race:{id}',
  'gen:{id}', 'gensb:{id}')`)
await db.query(`INSERT INTO race SELECT i, 1 FROM generate_series(1, ${ROWS}) i`)

const one = 'SELECT version FROM race WHERE id = $1'
const pause = () => sleep(Math.random() < 0.5 ? 0 : Math.random() * 20)

// A load that is slow now and then between its read and the store.
async function slowly (on, id) {
  const {
    rows: [{ version }]
  } = await on.query(one, [id])
  await pause()
  return version
}

async function within (pool, begin, run) {
  const client = await pool.connect()
  try {
    await client.query(begin)
    return await run(client)
  } finally {
    await client.query('COMMIT')
    client.release()
  }
}

// Lanes: name -> {read(id) -> version, sessions}. A read by a standby or an older snapshot may be
// old of itself: there only what came from the cache counts, so it says how often it loaded.
async function lanes (clients) {
  const [io, nr] = await Promise.all([libraries.ioredis6(), libraries.redis6()])
  clients.push(io, nr)
  const options = { db, ttlMs: 60_000, redisTimeoutMs: 5000 }
  const fence = new Fence(io.client, options)
  const other = new Fence(nr.client, options)
  const leased = new Fence(io.client, { ...options, leaseMs: 1000 })
  const store = new KeyvUncache(io.client, { ...options, fenced: ['keyv:race:'] })
  const { Keyv } = library('keyv5')
  const keyv = new Keyv({ store })
  const driver = uncacheDriver({ redis: nr.client, ...options, fenced: ['bentocache:race:'] })
  const bento = new BentoCache({ default: 'one', stores: { one: bentostore().useL2Layer(driver) } })
  // With a connection of its own, and so without sharing flights.
  const own = (pool, begin, key) => id =>
    within(pool, begin, async client => {
      let loaded = false
      const load = () => {
        loaded = true
        return slowly(client, id)
      }
      return { version: await fence.fetch(`${key}:${id}`, load, { db: client }), loaded }
    })
  const tagged = (pool, begin, tag) => id =>
    within(pool, begin, async client => {
      let loaded = false
      const load = () => {
        loaded = true
        return slowly(client, id)
      }
      const version = await fence.tags(
        [`${tag}:${id}`],
        key => fence.fetch(key(`${tag}list:${id}`), load, { db: client }),
        { db: client }
      )
      return { version, loaded }
    })
  return {
    fetch: { read: id => fence.fetch(`io:${id}`, () => slowly(db, id)), counters: fence.counters },
    'fetch, node-redis': { read: id => other.fetch(`nr:${id}`, () => slowly(db, id)) },
    lease: { read: id => leased.fetch(`lease:${id}`, () => slowly(db, id)) },
    fetchSql: { read: async id => (await other.fetchSql(`sql:${id}`, one, [id]))[0].version },
    transaction: { read: id => fence.transaction(`tx:${id}`, tx => slowly(tx, id)) },
    fetchMany: {
      read: async id =>
        (
          await other.fetchMany([`many:${id}`, `many:${(id % ROWS) + 1}`], async keys => {
            const ids = keys.map(key => Number(key.split(':')[1]))
            const { rows } = await db.query('SELECT id, version FROM race WHERE id = ANY ($1)', [
              ids
            ])
            await pause()
            return new Map(rows.map(row => [`many:${row.id}`, row.version]))
          })
        ).get(`many:${id}`)
    },
    'fetch, PgBouncer': { read: own(bouncer, 'BEGIN', 'pb') },
    'fetch, REPEATABLE READ': { read: own(db, 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'rr') },
    'fetch, standby': { read: own(standby, 'BEGIN', 'sb') },
    'tags, REPEATABLE READ': { read: tagged(db, 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'gen') },
    'tags, standby': { read: tagged(standby, 'BEGIN', 'gensb') },
    keyv: { read: id => request(db, () => viaKeyv(keyv, db, id)), keyv },
    // bentocache's own lock lets readers wait for a load; each reads the cache again after it.
    bentocache: {
      read: id =>
        request(db, () => bento.getOrSet({ key: `race:${id}`, factory: () => slowly(db, id) }))
    }
  }
}

async function viaKeyv (keyv, on, id, beforeRead = async () => {}) {
  let version = await keyv.get(`race:${id}`)
  if (version === undefined) {
    await beforeRead()
    version = await slowly(on, id)
    await keyv.set(`race:${id}`, version)
  }
  return version
}

async function plainly (redis, id) {
  const hit = await redis.get(`plain:${id}`)
  if (hit !== null) return Number(hit)
  const version = await slowly(db, id)
  await redis.set(`plain:${id}`, String(version), 'PX', 60_000)
  return version
}

// A transaction that writes, after the miss or before it, reads its own write through the cache,
// and rolls back.
async function dirtyWrite (id, { fetch, keyv }) {
  const client = await db.connect()
  try {
    const write = () => client.query('UPDATE race SET version = $2 WHERE id = $1', [id, DIRTY])
    await client.query('BEGIN')
    await request(client, () => viaKeyv(keyv, client, id, write))
    await write()
    await request(client, () => viaKeyv(keyv, client, id))
    await fetch.ownRead(client, id)
  } finally {
    await client.query('ROLLBACK')
    client.release()
  }
}

async function race (named, seconds) {
  const committed = new Map()
  const tally = Object.fromEntries(
    Object.keys(named).map(name => [name, { reads: 0, stale: 0, dirty: 0 }])
  )
  const end = Date.now() + seconds * 1000
  const anyRow = () => 1 + Math.floor(Math.random() * ROWS)
  const writer = async () => {
    while (Date.now() < end) {
      const id = anyRow()
      if (named.fetch && Math.random() < 0.2)
        await dirtyWrite(id, { fetch: named.fetch, keyv: named.keyv.keyv })
      const {
        rows: [{ version }]
      } = await db.query('UPDATE race SET version = version + 1 WHERE id = $1 RETURNING version', [
        id
      ])
      committed.set(id, Math.max(version, committed.get(id) ?? 1))
      await sleep(Math.random() * 20)
    }
  }
  const reader = async name => {
    while (Date.now() < end) {
      const id = anyRow()
      const newest = committed.get(id) ?? 1
      const result = await named[name].read(id)
      const { version, loaded } =
        typeof result === 'object' ? result : { version: result, loaded: false }
      tally[name].reads++
      if (version < newest && !loaded) tally[name].stale++
      if (version >= DIRTY) tally[name].dirty++
      await sleep(Math.random() * 3)
    }
  }
  const names = Object.keys(named)
  const sessions = Math.ceil((50 - WRITERS) / names.length)
  await Promise.all(
    Array.from({ length: WRITERS }, writer).concat(
      names.flatMap(name => Array.from({ length: sessions }, () => reader(name)))
    )
  )
  return tally
}

const told =
  name =>
  ({ reads, stale, dirty }) =>
    `${name}: ${reads} reads, ${stale} stale${dirty ? `, ${dirty} of what was rolled back` : ''}`

test('a plain cache serves stale values to 50 sessions', async () => {
  const { client, end } = await libraries.ioredis6()
  const { plain } = await race(
    { plain: { read: id => plainly(client, id) } },
    Math.max(2, SECONDS / 3)
  )
  say(told('plain')(plain))
  assert.ok(plain.stale > 0, 'the race does not find what it looks for')
  end()
})

test('50 sessions by every way: none reads a stale or rolled-back value', async () => {
  const clients = []
  const named = await lanes(clients)
  const fence = new Fence(clients[0].client, { db, ttlMs: 60_000, redisTimeoutMs: 5000 })
  named.fetch.ownRead = (client, id) =>
    fence.fetch(`io:${id}`, () => slowly(client, id), { db: client })
  const tally = await race(named, SECONDS)
  for (const [name, counts] of Object.entries(tally)) say(told(name)(counts))
  for (const [name, { reads, stale, dirty }] of Object.entries(tally)) {
    assert.ok(reads > 0, `${name} has read nothing`)
    assert.deepEqual([name, stale, dirty], [name, 0, 0])
  }
  for (const { end } of clients) end()
})
