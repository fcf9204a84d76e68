// cluster.js: keys of all slots, a master that hangs, by each library.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { Fence } from '../src/index.js'
import { KeyvUncache, request } from '../src/keyv.js'
import { assert, test } from './tap.js'
import { clusterLibraries, env, onClusterDatabase, until } from './servers.js'
import { nameOf } from './setup.js'

const db = onClusterDatabase()
await db.query('DROP TABLE IF EXISTS spread; CREATE TABLE spread (id int PRIMARY KEY, name text)')
await db.query("SELECT uncache.attach('spread', 'spread:{id}', 'gen:spread')")
await db.query("INSERT INTO spread SELECT i, 'first' FROM generate_series(1, 30) i")
const read = nameOf(db, 'spread')
const keys = Array.from({ length: 30 }, (_, i) => `spread:${i + 1}`)

for (const library of Object.keys(clusterLibraries)) {
  const cluster = run => async () => {
    await db.query("UPDATE spread SET name = 'first'; SELECT uncache.invalidate_table('spread')")
    await db.query('SELECT uncache.wait()')
    const { client, end } = await clusterLibraries[library]()
    const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 2000 })
    try {
      await run(fence, client)
    } finally {
      fence.close()
      end()
    }
  }

  test(
    `${library}, Cluster: keys of all slots are stored, hit, and invalidated`,
    cluster(async fence => {
      for (const [i, key] of keys.entries())
        assert.equal(await fence.fetch(key, () => read(i + 1)), 'first')
      for (const key of keys) assert.equal(await fence.fetch(key, () => assert.fail()), 'first')
      assert.deepEqual([fence.counters.stored, fence.counters.hit], [30, 30])
      await db.query("UPDATE spread SET name = 'second'")
      for (const [i, key] of keys.entries())
        assert.equal(await fence.fetch(key, () => read(i + 1)), 'second')
    })
  )

  test(
    `${library}, Cluster: many keys at once, and a page below a tag`,
    cluster(async fence => {
      const values = await fence.fetchMany(keys, missing => missing)
      assert.deepEqual([...values.values()], keys)
      await fence.fetchMany(keys, () => assert.fail())
      const page = load => fence.tags(['gen:spread'], key => fence.fetch(key('list'), load))
      assert.equal(await page(() => 'a'), 'a')
      assert.equal(await page(() => assert.fail()), 'a')
      await db.query("UPDATE spread SET name = 'second' WHERE id = 7")
      assert.equal(await page(() => 'b'), 'b')
    })
  )

  test(
    `${library}, Cluster: a late reader is refused`,
    cluster(async fence => {
      await fence.fetch('spread:1', async () => {
        const name = await read(1)
        await db.query("UPDATE spread SET name = 'second' WHERE id = 1")
        return name
      })
      assert.deepEqual([fence.counters.stored, fence.counters.refused], [0, 1])
    })
  )

  test(
    `${library}, Cluster: clear() deletes from all masters, and not what is the fence's`,
    cluster(async (fence, client) => {
      const store = new KeyvUncache(client, { db, ttlMs: 60_000, fenced: [] })
      store.namespace = 'a*b'
      for (let i = 0; i < 50; i++) {
        await store.set(`a*b:${i}`, '1')
        await store.set(`aab:${i}`, '1')
      }
      await store.clear()
      for (let i = 0; i < 50; i++) {
        assert.equal(await store.has(`a*b:${i}`), false)
        assert.equal(await store.has(`aab:${i}`), true)
      }
      store.namespace = 'aab'
      await store.clear()
      assert.equal(await store.has('aab:1'), false)
      await request(db, () => store.get('spread:1'))
      store.close()
    })
  )

  test(
    `${library}, Cluster: a master that hangs costs its keys one wait, and the others none`,
    cluster(async (_, client) => {
      const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 100 })
      await fence.fetchMany(keys, missing => missing)
      const pid = masterPid()
      process.kill(pid, 'SIGSTOP')
      try {
        let loads = 0
        const began = performance.now()
        for (let round = 0; round < 3; round++) {
          for (const key of keys)
            await fence.fetch(key, () => {
              loads++
              return key
            })
        }
        assert.ok(performance.now() - began < 3000, `${performance.now() - began} ms`)
        assert.ok(loads > 0 && loads < 90, `${loads} loads`)
        assert.ok(fence.counters.hit > 0)
      } finally {
        process.kill(pid, 'SIGCONT')
      }
      await until('the master', () => !fence.isAway, 30)
      const { hit } = fence.counters
      await until(
        'hits of all keys',
        async () => {
          await fence.fetchMany(keys, missing => missing)
          return fence.counters.hit >= hit + 30
        },
        30
      )
      fence.close()
    })
  )
}

// The process that listens on the first master's port, by /proc, as its owner.
function masterPid () {
  const hex = Number(env.REDIS_CLUSTER_PORT).toString(16).toUpperCase().padStart(4, '0')
  const line = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .find(one => one.includes(`:${hex} 00000000:0000 0A`))
  const inode = line.trim().split(/\s+/)[9]
  return pidOf(inode)
}

function pidOf (inode) {
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`) return Number(pid)
      }
    } catch {
      /* another user's, or gone */
    }
  }
  throw new Error('no process listens there')
}
