// fence.js: a Fence against real servers, beyond what clients/conformance says.
import { Fence, request } from '../src/index.js'
import { assert, say, test } from './tap.js'
import { libraries, onPgbouncer, onStandby, pool, sleep, until } from './servers.js'
import { callsOf, db, nameOf, newTable, session, watched } from './setup.js'

await newTable('users', 3, 'user:{id}', ':{id}', 'gen:7')
const read = nameOf(db, 'users')
const rename = (name, id = 1) => db.query('UPDATE users SET name = $2 WHERE id = $1', [id, name])
const standby = onStandby()
const bouncer = onPgbouncer()

async function reset () {
  await db.query("UPDATE users SET name = 'first'")
  await db.query(
    "SELECT uncache.invalidate_keys('user:' || i) FROM generate_series(1, 100) i"
  )
  await db.query("SELECT uncache.invalidate_keys(':1', ':2', 'gen:7')")
  await db.query('SELECT uncache.wait()')
}

// Each test with each library, unless told.
function each (name, run, names = Object.keys(libraries), options) {
  for (const library of names) {
    test(`${library}: ${name}`, async () => {
      await reset()
      const { client, end } = await libraries[library](options)
      const made = []
      const newFence = more => {
        const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 2000, ...more })
        made.push(fence)
        return fence
      }
      try {
        await run(newFence, client)
      } finally {
        for (const fence of made) fence.close()
        end()
      }
    })
  }
}
const NEWEST = ['ioredis6', 'redis6']

each(
  'readers that begin after a commit do not join a load from before it',
  async newFence => {
    const fence = newFence()
    let loads = 0
    let goOn
    const held = new Promise(resolve => {
      goOn = resolve
    })
    const slow = async () => {
      loads++
      const name = await read(1)
      await held
      return name
    }
    const quick = async () => {
      loads++
      return read(1)
    }
    const before = fence.fetch('user:1', slow)
    await until('the load', () => loads === 1)
    await rename('second')
    const after = Array.from({ length: 20 }, () => fence.fetch('user:1', quick))
    await sleep(50)
    assert.equal(loads, 1, 'the next flight waits')
    goOn()
    assert.equal(await before, 'first')
    for (const value of await Promise.all(after)) assert.equal(value, 'second')
    assert.equal(loads, 2)
    assert.deepEqual([fence.counters.refused, fence.counters.stored], [1, 1])
  },
  NEWEST
)

each('many keys take one MGET, one snapshot and one load', async (newFence, client) => {
  const asked = watched(db)
  const fence = newFence({ db: asked })
  const keys = Array.from({ length: 100 }, (_, i) => `user:${i + 1}`)
  const mgets = await callsOf(client, 'mget')
  const gets = await callsOf(client, 'get')
  let loads = 0
  const load = missing => {
    loads++
    return missing.map(key => key)
  }
  const values = await fence.fetchMany(keys, load)
  assert.deepEqual([...values.values()], keys)
  assert.equal((await callsOf(client, 'mget')) - mgets, 1)
  // The functions read by GET, too; a client none.
  assert.ok((await callsOf(client, 'get')) - gets <= 400)
  assert.deepEqual([loads, asked.seen.length], [1, 1])
  assert.match(asked.seen[0], /text\[\]/)
  assert.equal(fence.counters.stored, 100)
  await fence.fetchMany(keys, load)
  assert.deepEqual([loads, asked.seen.length, fence.counters.hit], [1, 1, 100])
})

each(
  'a load of many may give a Map, an object or an array; nothing for a key is an error',
  async newFence => {
    const fence = newFence()
    const two = ['user:1', 'user:2']
    for (const loaded of [
      new Map([
        ['user:1', 1],
        ['user:2', null]
      ]),
      { 'user:1': 1, 'user:2': null },
      [1, null]
    ]) {
      await reset()
      assert.deepEqual(
        [...(await fence.fetchMany(two, () => loaded))],
        [
          ['user:1', 1],
          ['user:2', null]
        ]
      )
      assert.deepEqual(
        [...(await fence.fetchMany(two, () => assert.fail()))],
        [
          ['user:1', 1],
          ['user:2', null]
        ]
      )
    }
    await reset()
    await assert.rejects(
      fence.fetchMany(two, () => new Map()),
      /nothing for "user:1"; give null/
    )
    await assert.rejects(
      fence.fetchMany(two, () => undefined),
      /nothing for "user:1"/
    )
  },
  NEWEST
)

each(
  'more keys than a batch holds',
  async newFence => {
    const fence = newFence()
    const keys = Array.from({ length: 2500 }, (_, i) => `many:${i}`)
    const values = await fence.fetchMany(keys, missing => missing)
    assert.deepEqual([...values.keys()], keys)
    assert.equal(fence.counters.stored, 2500)
    await fence.fetchMany(keys, () => assert.fail('all are there'))
    await db.query("SELECT uncache.invalidate_pattern('many:*')")
  },
  NEWEST
)

each(
  'a miss of fetchSql is one statement',
  async newFence => {
    const asked = watched(db)
    const fence = newFence({ db: asked })
    const rows = () => fence.fetchSql('user:1', 'SELECT id, name FROM users WHERE id = $1; ', [1])
    assert.deepEqual(await rows(), [{ id: 1, name: 'first' }])
    assert.deepEqual(await rows(), [{ id: 1, name: 'first' }])
    assert.equal(asked.seen.length, 1)
    await rename('second')
    assert.deepEqual(await rows(), [{ id: 1, name: 'second' }])
    const ordered = await fence.fetchSql(
      'user:2',
      'WITH u AS (SELECT * FROM users) SELECT id FROM u ORDER BY id DESC -- the last first',
      []
    )
    assert.deepEqual(
      ordered.map(row => row.id),
      [3, 2, 1]
    )
  },
  NEWEST
)

each(
  'fetchSql can not write',
  async newFence => {
    const fence = newFence()
    await assert.rejects(fence.fetchSql('user:1', "UPDATE users SET name = 'no' RETURNING name"))
    await assert.rejects(
      fence.fetchSql(
        'user:1',
        "WITH w AS (UPDATE users SET name = 'no' RETURNING name) SELECT * FROM w"
      )
    )
    assert.equal(await read(1), 'first')
  },
  ['ioredis6']
)

each(
  'a transaction gives its connection back, also after an error',
  async newFence => {
    const small = pool({ max: 1 })
    const fence = newFence({ db: small })
    await assert.rejects(
      fence.transaction('user:1', tx => tx.query('SELECT 1 / 0')),
      /division/
    )
    await assert.rejects(
      fence.transaction('user:1', tx => tx.query('DELETE FROM users')),
      /read-only/
    )
    await assert.rejects(
      fence.transaction('user:1', async tx => {
        await tx.query('SET TRANSACTION READ WRITE')
      }),
      /read-write mode/
    )
    const value = await fence.transaction(
      'user:1',
      async tx => (await tx.query('SELECT 1 AS one')).rows[0].one
    )
    assert.equal(value, 1)
    assert.deepEqual([small.totalCount, small.idleCount], [1, 1])
  },
  ['ioredis6']
)

each(
  'a database of functions alone: db and begin',
  async newFence => {
    const begin = async work => {
      const client = await db.connect()
      try {
        await client.query('BEGIN')
        const value = await work((text, parameters) => client.query(text, parameters))
        await client.query('COMMIT')
        return value
      } catch (error) {
        await client.query('ROLLBACK')
        throw error
      } finally {
        client.release()
      }
    }
    const fence = newFence({
      db: async (text, parameters) => (await db.query(text, parameters)).rows,
      begin
    })
    assert.equal(await fence.fetch('user:1', () => read(1)), 'first')
    const load = async tx => (await tx('SELECT name FROM users WHERE id = 2', [])).rows[0].name
    assert.equal(await fence.transaction('user:2', load), 'first')
    await assert.rejects(
      fence.transaction('user:3', tx => tx("UPDATE users SET name = 'no'", [])),
      /read-only/
    )
    assert.equal(fence.counters.stored, 2)
  },
  ['ioredis6']
)

each(
  'inside a transaction that has written, with its connection, nothing is stored',
  async newFence => {
    const fence = newFence()
    const client = await db.connect()
    await client.query('BEGIN')
    await client.query("UPDATE users SET name = 'mine' WHERE id = 1")
    const mine = nameOf(client, 'users')
    assert.equal(await fence.fetch('user:1', () => mine(1), { db: client }), 'mine')
    assert.deepEqual(
      [...(await fence.fetchMany(['user:1'], async () => [await mine(1)], { db: client }))],
      [['user:1', 'mine']]
    )
    assert.deepEqual(
      await fence.fetchSql('user:1', 'SELECT name FROM users WHERE id = 1', [], { db: client }),
      [{ name: 'mine' }]
    )
    await client.query('ROLLBACK')
    client.release()
    assert.deepEqual([fence.counters.stored, fence.counters.unfenced], [0, 3])
    assert.equal(await fence.fetch('user:1', () => read(1)), 'first')
  },
  NEWEST
)

each(
  'a request() tells a Fence, too, where its reads go',
  async newFence => {
    const fence = newFence()
    await session(async client => {
      await client.query("BEGIN; UPDATE users SET name = 'mine' WHERE id = 1")
      await request(client, async () => {
        const mine = nameOf(client, 'users')
        assert.equal(await fence.fetch('user:1', () => mine(1)), 'mine')
        const many = await fence.fetchMany(['user:1'], async () => [await mine(1)])
        assert.equal(many.get('user:1'), 'mine')
        const rows = await fence.fetchSql('user:1', 'SELECT name FROM users WHERE id = 1')
        assert.deepEqual(rows, [{ name: 'mine' }])
      })
    })
    assert.deepEqual([fence.counters.stored, fence.counters.unfenced], [0, 3])
    const both = [1, 2].map(() => request(db, () => fence.fetch('user:1', () => read(1))))
    assert.deepEqual(await Promise.all(both), ['first', 'first'])
    assert.equal(fence.counters.stored, 1)
  },
  NEWEST
)

each(
  'without the extension values are served',
  async newFence => {
    const other = pool({ database: 'postgres' })
    const reasons = []
    const fence = newFence({
      db: other,
      onEvent: event => {
        if (event.reason) reasons.push(event.reason)
      }
    })
    assert.equal(await fence.fetch('user:1', async () => 'served'), 'served')
    assert.deepEqual(await fence.fetchSql('user:1', 'SELECT $1::int AS one', [1]), [{ one: 1 }])
    assert.deepEqual([...(await fence.fetchMany(['user:1'], () => [1]))], [['user:1', 1]])
    assert.equal(fence.counters.unfenced, 3)
    for (const reason of reasons) assert.match(reason, /is the extension in this database/)
  },
  ['ioredis6']
)

each(
  'REPEATABLE READ: what a reader read before is not stored after',
  async newFence => {
    const fence = newFence()
    const client = await db.connect()
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    const old = nameOf(client, 'users')
    await old(1)
    await rename('second')
    assert.equal(await fence.fetch('user:1', () => old(1), { db: client }), 'first')
    await client.query('COMMIT')
    client.release()
    assert.deepEqual([fence.counters.stored, fence.counters.refused], [0, 1])
    assert.equal(await fence.fetch('user:1', () => read(1)), 'second')
  },
  NEWEST
)

each(
  'a standby that lags does not fill what it has not seen',
  async newFence => {
    const fence = newFence({ db: standby })
    const onIt = nameOf(standby, 'users')
    await until('the standby', async () => (await onIt(1)) === 'first')
    await standby.query('SELECT pg_wal_replay_pause()')
    try {
      await rename('second')
      assert.equal(await fence.fetch('user:1', () => onIt(1)), 'first')
      assert.equal(fence.counters.stored, 0)
    } finally {
      await standby.query('SELECT pg_wal_replay_resume()')
    }
    await until(
      "the standby's fill",
      async () =>
        (await fence.fetch('user:1', () => onIt(1))) === 'second' && fence.counters.hit > 0,
      30
    )
  },
  NEWEST
)

each(
  'behind PgBouncer in transaction pooling all ways store',
  async newFence => {
    const fence = newFence({ db: bouncer })
    const load = nameOf(bouncer, 'users')
    assert.equal(await fence.fetch('user:1', () => load(1)), 'first')
    await fence.fetchMany(['user:2', 'user:9'], () => [1, null])
    await fence.fetchSql('user:3', 'SELECT 1 AS one')
    await reset()
    await fence.transaction('user:1', async tx => (await tx.query('SELECT 1 AS one')).rows)
    assert.deepEqual([fence.counters.stored, fence.counters.unfenced], [5, 0])
  },
  NEWEST
)

each(
  'a key prefix of the client is part of the key',
  async (newFence, client) => {
    const fence = newFence()
    assert.equal(await fence.fetch('1', () => read(1)), 'first')
    assert.equal(await client.get('1'), '"first"')
    await rename('second') // the template :{id}
    assert.equal(await fence.fetch('1', () => read(1)), 'second')
    assert.deepEqual(
      [...(await fence.fetchMany(['1', '2'], () => ['x']))],
      [
        ['1', 'second'],
        ['2', 'x']
      ]
    )
    assert.equal(fence.counters.stored, 3)
  },
  ['ioredis6', 'ioredis5'],
  { keyPrefix: ':' }
)

each(
  'node-redis with RESP3',
  async newFence => {
    const fence = newFence()
    assert.equal(await fence.fetch('user:1', () => read(1)), 'first')
    assert.equal(await fence.fetch('user:1', () => assert.fail()), 'first')
    await fence.fetchMany(['user:1', 'user:2', 'user:9'], () => [1, null])
    assert.deepEqual([fence.counters.stored, fence.counters.unfenced], [3, 0])
  },
  ['redis6', 'redis5', 'redis50'],
  { RESP: 3 }
)

each(
  'ioredis with auto-pipelining',
  async newFence => {
    const fence = newFence()
    const keys = ['user:1', 'user:2', 'user:3']
    for (const hits of [0, 3]) {
      await Promise.all(keys.map((key, i) => fence.fetch(key, () => read(i + 1))))
      assert.equal(fence.counters.hit, hits)
    }
    assert.equal(fence.counters.stored, 3)
  },
  ['ioredis6', 'ioredis5'],
  { enableAutoPipelining: true }
)

each(
  'a page is not cached below a nonce that could not be',
  async newFence => {
    const client = await db.connect()
    const fence = newFence()
    await client.query('BEGIN')
    await client.query("UPDATE users SET name = 'mine' WHERE id = 1")
    let loads = 0
    for (let i = 0; i < 2; i++) {
      await fence.tags(
        ['gen:7'],
        key => {
          assert.equal(key('list:7'), null)
          return fence.fetch(key('list:7'), () => loads++)
        },
        { db: client }
      )
    }
    await client.query('ROLLBACK')
    client.release()
    assert.equal(loads, 2)
    assert.equal(fence.counters.stored, 0)
  },
  NEWEST
)

each(
  'a nonce that is none, as somebody has set it, caches no page',
  async (newFence, client) => {
    const fence = newFence()
    await client.set('gen:7', 'x')
    await fence.tags(['gen:7'], key => assert.equal(key('list:7'), null))
  },
  NEWEST
)

each(
  'a page of several tags goes with each of them',
  async newFence => {
    const fence = newFence()
    const page = async load =>
      fence.tags(['user:2', 'user:3'], key => fence.fetch(key('list:23'), load))
    for (const [id, value] of [
      [0, 'a'],
      [2, 'b'],
      [3, 'c']
    ]) {
      if (id) await rename('other', id)
      assert.equal(await page(async () => value), value)
      assert.equal(await page(() => assert.fail()), value)
    }
  },
  ['ioredis6']
)

each(
  'a shadow check finds the one value in 10,000 that is stale, and no other',
  async (newFence, client) => {
    await newTable('shadows', 10_000, 'shadow:{id}')
    const seen = { checked: 0, stale: [] }
    const { rows } = await db.query('SELECT checked, found_stale FROM uncache.stat')
    const before = { checked: Number(rows[0].checked), stale: Number(rows[0].found_stale) }
    const ids = Array.from({ length: 10_000 }, (_, i) => i + 1)
    const keys = ids.map(id => `shadow:${id}`)
    await newFence().fetchMany(keys, missing => missing.map(() => 'first'))
    await client.set('shadow:4711', '"stale"')
    const shadow = newFence({
      shadow: 1,
      onEvent: ({ type, key, cached, loaded }) => {
        if (type === 'checked') seen.checked++
        if (type === 'stale') seen.stale.push([key, `${cached}`, `${loaded}`])
      }
    })
    const name = nameOf(db, 'shadows')
    let next = 0
    const session = async () => {
      while (next < ids.length) {
        const id = ids[next++]
        // Now and then somebody writes: what differs then is not stale.
        if (id % 100 === 0)
          await db.query("UPDATE shadows SET name = name || '!' WHERE id = $1", [id])
        await shadow.fetch(`shadow:${id}`, () => name(id))
      }
    }
    await Promise.all(Array.from({ length: 20 }, session))
    await shadow.idle()
    assert.deepEqual(seen.stale, [['shadow:4711', '"stale"', '"first"']])
    assert.ok(seen.checked >= 9800, `${seen.checked} checked`)
    assert.equal(`${await client.get('shadow:4711')}`, '"first"')
    const counted = async () => {
      const { rows } = await db.query('SELECT checked, found_stale FROM uncache.stat')
      return [Number(rows[0].checked) - before.checked, Number(rows[0].found_stale) - before.stale]
    }
    await until('uncache.stat', async () => (await counted())[1] === 1)
    assert.deepEqual(await counted(), [seen.checked, 1])
  },
  ['ioredis6']
)

each(
  'a shadow check with a share of 0.5 looks at about half',
  async newFence => {
    let checked = 0
    const fence = newFence({
      shadow: 0.5,
      onEvent: ({ type }) => {
        if (type === 'checked') checked++
      }
    })
    await fence.fetch('user:1', () => read(1))
    for (let i = 0; i < 200; i++) assert.equal(await fence.fetch('user:1', () => read(1)), 'first')
    assert.ok(checked > 50 && checked < 150, `${checked}`)
  },
  ['ioredis6']
)

each(
  'a shadow check whose load fails disturbs no reader',
  async newFence => {
    const fence = newFence({ shadow: 1 })
    await fence.fetch('user:1', () => read(1))
    assert.equal(
      await fence.fetch('user:1', () => {
        throw new Error('no')
      }),
      'first'
    )
  },
  ['ioredis6']
)

each(
  '200 readers of one key in one process ask the database once or twice',
  async newFence => {
    const fence = newFence()
    let loads = 0
    const load = async () => {
      loads++
      await sleep(30)
      return read(1)
    }
    const values = await Promise.all(Array.from({ length: 200 }, () => fence.fetch('user:1', load)))
    assert.ok(values.every(value => value === 'first'))
    assert.ok(loads <= 2, `${loads} loads`)
  },
  NEWEST
)

// Twenty Fences are like twenty processes: nothing is shared but Redis.
async function herd (newFence, leaseMs) {
  const fences = Array.from({ length: 20 }, () => newFence({ leaseMs }))
  let loads = 0
  const load = async () => {
    loads++
    await sleep(30)
    return read(1)
  }
  const times = []
  const one = async fence => {
    const began = performance.now()
    assert.equal(await fence.fetch('user:1', load), 'first')
    times.push(performance.now() - began)
  }
  await Promise.all(fences.flatMap(fence => Array.from({ length: 10 }, () => one(fence))))
  times.sort((a, b) => a - b)
  return { loads, p99: times[197].toFixed(0) }
}

each(
  '200 readers in 20 processes: with a lease one asks the database, or two',
  async newFence => {
    const without = await herd(newFence, undefined)
    await reset()
    const withLease = await herd(newFence, 5000)
    say(
      `200 readers of one key: without a lease ${without.loads} loads, p99 ${without.p99} ms; ` +
        `with one ${withLease.loads}, ${withLease.p99} ms`
    )
    assert.ok(withLease.loads <= 2, `${withLease.loads} loads`)
  },
  NEWEST
)

each(
  'a lease whose holder died holds up the others for its time at most',
  async (newFence, client) => {
    const gone = newFence({ leaseMs: 400 })
    gone.fetch('user:1', () => new Promise(() => {})).catch(() => {})
    await sleep(50)
    const fence = newFence({ leaseMs: 400 })
    const began = performance.now()
    assert.equal(await fence.fetch('user:1', () => read(1)), 'first')
    assert.ok(performance.now() - began < 5000)
    await until('a fill', async () => {
      await fence.fetch('user:1', () => read(1))
      return fence.counters.hit > 0
    })
  },
  NEWEST
)

each(
  'a holder whose load fails, or may not store, gives its lease back at once',
  async newFence => {
    const fence = newFence({ leaseMs: 30_000 })
    await assert.rejects(
      fence.fetch('user:1', async () => {
        throw new Error('no')
      }),
      /no/
    )
    const client = await db.connect()
    await client.query('BEGIN')
    await client.query("UPDATE users SET name = 'mine' WHERE id = 2")
    await fence.fetch('user:1', () => 'mine', { db: client })
    await client.query('ROLLBACK')
    client.release()
    const other = newFence({ leaseMs: 30_000 })
    assert.equal(await other.fetch('user:1', () => read(1)), 'first')
    assert.deepEqual([other.counters.waited, other.counters.stored], [0, 1])
  },
  NEWEST
)
