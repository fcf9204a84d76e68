// outage.js: a Redis that hangs, refuses connections, comes back empty, or answers with errors.
import { createServer, connect } from 'node:net'
import { Fence } from '../src/index.js'
import { KeyvUncache, request } from '../src/keyv.js'
import { assert, say, test } from './tap.js'
import { env, libraries, signal, sleep, until } from './servers.js'
import { db, nameOf, newTable } from './setup.js'

await newTable('away', 3, 'away:{id}')
const read = nameOf(db, 'away')
const LIBRARIES = ['ioredis6', 'ioredis5', 'redis6', 'redis5']

// What stands before the Redis, so that it can go away.
class Proxy {
  sockets = new Set()

  async open () {
    this.server = createServer(socket => {
      const to = connect(Number(env.REDIS_PORT), env.REDIS_HOST)
      for (const one of [socket, to]) {
        this.sockets.add(one)
        one.on('error', () => {}).on('close', () => this.sockets.delete(one))
      }
      socket.pipe(to).pipe(socket)
    }).listen(this.port ?? 0)
    await new Promise(resolve => this.server.once('listening', resolve))
    this.port = this.server.address().port
  }

  close () {
    this.server.close()
    for (const socket of this.sockets) socket.destroy()
  }
}

const through = (library, port) =>
  libraries[library](
    library.startsWith('io')
      ? { port, host: '127.0.0.1' }
      : { url: `redis://127.0.0.1:${port}/${env.REDIS_DB}` }
  )

// How long each of n calls took, ms, the longest first.
async function timed (n, call) {
  const times = []
  for (let i = 0; i < n; i++) {
    const began = performance.now()
    await call()
    times.push(performance.now() - began)
  }
  return times.sort((a, b) => b - a)
}

for (const library of LIBRARIES) {
  test(`${library}: while Redis hangs one request waits; then it is used again`, async () => {
    const { client, end } = await libraries[library]()
    const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 50 })
    const fetch = () => fence.fetch('away:1', () => read(1))
    try {
      assert.equal(await fetch(), 'first')
      signal('STOP')
      const times = await timed(50, async () => assert.equal(await fetch(), 'first'))
      say(`${library}, hung: longest ${times[0].toFixed(1)} ms, then ${times[1].toFixed(1)} ms`)
      // On a busy machine a query takes its time, too; together they stay far below 50 waits.
      assert.ok(times.reduce((a, b) => a + b) < 50 * 45, `${times}`)
      assert.ok(fence.isAway)
      signal('CONT')
      await until('Redis', () => !fence.isAway)
      await until('a hit', async () => {
        await fetch()
        return fence.counters.hit > 1
      })
    } finally {
      signal('CONT')
      fence.close()
      end()
    }
  })

  test(`${library}: while Redis refuses connections no request waits`, async () => {
    const proxy = new Proxy()
    await proxy.open()
    const { client, end } = await through(library, proxy.port)
    const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 50 })
    const fetch = () => fence.fetch('away:2', () => read(2))
    try {
      assert.equal(await fetch(), 'first')
      proxy.close()
      const times = await timed(50, async () => assert.equal(await fetch(), 'first'))
      say(`${library}, away: longest ${times[0].toFixed(1)} ms, then ${times[1].toFixed(1)} ms`)
      assert.ok(times.reduce((a, b) => a + b) < 50 * 45, `${times}`)
      await proxy.open()
      await until('Redis', () => !fence.isAway, 30)
      const { hit } = fence.counters
      await until('a hit', async () => {
        await fetch()
        return fence.counters.hit > hit
      })
    } finally {
      proxy.close()
      fence.close()
      end()
    }
  })

  test(`${library}: many readers at once, and many keys, while Redis hangs`, async () => {
    const { client, end } = await libraries[library]()
    const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 50 })
    try {
      signal('STOP')
      const began = performance.now()
      await Promise.all(Array.from({ length: 100 }, (_, i) => fence.fetch(`away:${i}`, () => 1)))
      await fence.fetchMany(['away:1', 'away:2'], () => [1, 2])
      assert.ok(performance.now() - began < 2000)
      assert.equal(fence.counters.unfenced, 102)
    } finally {
      signal('CONT')
      await until('Redis', () => !fence.isAway)
      fence.close()
      end()
    }
  })
}

test('a store: while Redis hangs one request waits', async () => {
  const { client, end } = await libraries.ioredis6()
  const store = new KeyvUncache(client, {
    db,
    ttlMs: 60_000,
    fenced: ['away:'],
    redisTimeoutMs: 50
  })
  try {
    signal('STOP')
    const times = await timed(30, () =>
      request(db, async () => {
        assert.equal(await store.get('away:3'), undefined)
        assert.equal(await store.set('away:3', '"x"', 1000), false)
        assert.equal(await store.set('other', '"x"', 1000), false)
        assert.equal(await store.delete('away:3'), false)
      })
    )
    assert.ok(times.reduce((a, b) => a + b) < 30 * 45, `${times}`)
  } finally {
    signal('CONT')
    store.close()
    end()
  }
})

test('without the functions values are served, and cached again when they are back', async () => {
  const { client, end } = await libraries.ioredis6()
  const fence = new Fence(client, { db, ttlMs: 60_000, redisTimeoutMs: 2000 })
  try {
    await db.query("SELECT uncache.invalidate_keys('away:1')")
    await client.call('FUNCTION', 'FLUSH')
    assert.equal(await fence.fetch('away:1', () => read(1)), 'first')
    await until('a fill', async () => {
      await fence.fetch('away:1', () => read(1))
      return fence.counters.hit > 0
    })
  } finally {
    fence.close()
    end()
  }
})

test('a user who may not call the functions reads the database', async () => {
  const admin = await libraries.ioredis6()
  await admin.client.call('ACL', 'SETUSER', 'poor', 'on', '>poor', '+get', '+select', '+info', '~*')
  const { client, end } = await libraries.ioredis6({ username: 'poor', password: 'poor' })
  const errors = []
  const fence = new Fence(client, {
    db,
    ttlMs: 1000,
    onEvent: event => {
      if (event.type === 'unfenced') errors.push(event.reason)
    }
  })
  assert.equal(await fence.fetch('away:9', () => 'x'), 'x')
  assert.match(errors[0], /NOPERM/)
  assert.ok(!fence.isAway)
  await admin.client.call('ACL', 'DELUSER', 'poor')
  await sleep(0)
  fence.close()
  end()
  admin.end()
})
