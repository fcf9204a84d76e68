// unit.js: what needs no server: wrong uses, single flight, the circuit, the warning.
import { readdirSync, readFileSync } from 'node:fs'
import { Fence } from '../src/index.js'
import { KeyvUncache } from '../src/keyv.js'
import { slotOf } from '../src/client.js'
import { Flights } from '../src/flights.js'
import { assert, test } from './tap.js'
import { sleep } from './servers.js'

// A Redis of which each command is a function, or hangs.
export function fakeRedis (commands = {}) {
  const hang = () => new Promise(() => {})
  const never = name => commands[name] ?? hang
  const client = {
    options: {},
    calls: [],
    call: hang,
    getBuffer: key => {
      client.calls.push('get')
      return never('get')(key)
    },
    fcallBuffer: (name, _, key, ...words) => {
      client.calls.push(name)
      return never(name)(key, ...words)
    }
  }
  return client
}

const answering = {
  get: async () => null,
  uncache_get: async () => [null, Buffer.from('e.1:1')],
  uncache_set: async () => 1
}
const options = { snapshot: async token => `${token}:x`, ttlMs: 1000 }
const newFence = (commands, more) => {
  const redis = fakeRedis(commands)
  return { redis, fence: new Fence(redis, { ...options, ...more }) }
}
const refuses = (words, more, redis = fakeRedis()) =>
  assert.throws(() => new Fence(redis, { ...options, ...more }), words)

test('unit: wrong options are refused in words', () => {
  refuses(/ttlMs must be a positive whole number/, { ttlMs: '60s' })
  refuses(/ttlMs/, { ttlMs: 0 })
  refuses(/ttlMs/, { ttlMs: 1.5 })
  refuses(/did you mean ttlMs/, { ttl: 60 })
  refuses(/no option "colour"/, { colour: 'red' })
  refuses(/leaseMs .* up to 60000/, { leaseMs: 60_001 })
  refuses(/redisTimeoutMs/, { redisTimeoutMs: 0 })
  refuses(/shadow must be a share/, { shadow: 2 })
  refuses(/shadow needs the option db or wait/, { shadow: 0.5 })
  refuses(/belong together/, { encode: x => x })
  refuses(/onEvent must be a function/, { onEvent: 'x' })
  refuses(/db or snapshot is missing/, { snapshot: undefined })
  refuses(/db must be a Pool/, { db: 'postgresql://' })
  refuses(/must be a client of ioredis/, {}, { get() {} })
  assert.throws(() => new Fence(fakeRedis()), /options are missing/)
  assert.throws(() => new KeyvUncache(fakeRedis(), { ttlMs: 1000 }), /fenced must be an array/)
  assert.throws(() => new KeyvUncache(fakeRedis(), { ttlMs: 1000, fenced: 'user:' }), /fenced/)
})

test('unit: wrong arguments of a call are refused', async () => {
  const { fence } = newFence(answering)
  await assert.rejects(
    fence.fetch('', async () => 1),
    /key must be text/
  )
  await assert.rejects(
    fence.fetch(42, async () => 1),
    /key must be text/
  )
  await assert.rejects(fence.fetch('k', 1), /load must be a function/)
  await assert.rejects(
    fence.fetch('k', async () => 1, { ttlMs: -1 }),
    /ttlMs/
  )
  await assert.rejects(fence.fetchSql('k', 'SELECT 1'), /needs the option db/)
  await assert.rejects(
    fence.transaction('k', async () => 1),
    /needs the option db/
  )
  const single = new Fence(fakeRedis(answering), {
    db: { query: async () => ({ rows: [] }) },
    ttlMs: 1000
  })
  await assert.rejects(
    single.transaction('k', async () => 1),
    /needs a Pool/
  )
})

test('unit: a load that gives undefined, or what JSON can not say, is an error', async () => {
  const { redis, fence } = newFence(answering)
  await assert.rejects(
    fence.fetch('k', async () => undefined),
    /gave undefined; give null/
  )
  await assert.rejects(
    fence.fetch('k', async () => () => 1),
    /can't be encoded/
  )
  await assert.rejects(
    fence.fetch('k', async () => 1n),
    /BigInt/
  )
  assert.ok(!redis.calls.includes('uncache_set'))
})

test('unit: without a snapshot undefined is an error, too', async () => {
  const { fence } = newFence(answering, { snapshot: async () => null })
  await assert.rejects(
    fence.fetch('k', async () => undefined),
    /gave undefined/
  )
})

test('unit: one flies, one waits: a reader joins only a flight that has not begun', async () => {
  const flights = new Flights()
  const begun = []
  const end = []
  const fly = name => () => {
    begun.push(name)
    return new Promise(resolve => end.push(() => resolve(name)))
  }
  const first = flights.run('k', fly('first'))
  const second = flights.run('k', fly('second'))
  const third = flights.run('k', fly('third'))
  await sleep(5)
  assert.deepEqual(begun, ['first'])
  end[0]()
  assert.equal(await first, 'first')
  await sleep(5)
  assert.deepEqual(begun, ['first', 'second'])
  const fourth = flights.run('k', fly('fourth'))
  end[1]()
  assert.equal(await second, 'second')
  assert.equal(await third, 'second')
  await sleep(5)
  end[2]()
  assert.equal(await fourth, 'fourth')
  assert.deepEqual(begun, ['first', 'second', 'fourth'])
})

test('unit: a flight that fails does not take the next one with it', async () => {
  const flights = new Flights()
  const first = flights.run('k', async () => {
    await sleep(5)
    throw new Error('no')
  })
  const second = flights.run('k', async () => 'yes')
  await assert.rejects(first, /no/)
  assert.equal(await second, 'yes')
})

test('unit: loads that ask for each other do not wait for each other', async () => {
  const { fence } = newFence(answering)
  const load = (other, key, deep) => async () => {
    await sleep(5)
    return deep === 0 ? key : fence.fetch(other, load(key, other, deep - 1))
  }
  const both = Promise.all([
    fence.fetch('a', load('b', 'a', 3)),
    fence.fetch('b', load('a', 'b', 3)),
    fence.fetch('a', load('b', 'a', 3))
  ])
  assert.ok(await Promise.race([both, sleep(5000)]), 'they wait for ever')
})

test('unit: a Redis that hangs is asked once', async () => {
  const { redis, fence } = newFence({}, { redisTimeoutMs: 30 })
  const began = performance.now()
  for (let i = 0; i < 20; i++) assert.equal(await fence.fetch('k', async () => i), i)
  assert.ok(performance.now() - began < 20 * 30, 'each has waited')
  // The first reader's, and a probe's.
  assert.deepEqual(redis.calls, ['get', 'get'])
  assert.equal(fence.counters.unfenced, 20)
  fence.close()
})

test('unit: a connection that fails is asked again by the probe alone', async () => {
  let works = false
  const events = []
  const { redis, fence } = newFence(
    {
      ...answering,
      get: async () => {
        if (works) return null
        throw new Error('connect ECONNREFUSED')
      }
    },
    {
      onEvent: ({ type }) => {
        if (type === 'down' || type === 'up') events.push(type)
      }
    }
  )
  await fence.fetch('k', async () => 1)
  await fence.fetch('k', async () => 1)
  assert.deepEqual(redis.calls, ['get', 'get'])
  works = true
  while (fence.isAway) await sleep(5)
  await fence.fetch('k', async () => 1)
  assert.equal(fence.counters.stored, 1)
  assert.deepEqual(events, ['down', 'up'])
})

test('unit: an answer that came while the process was busy is not late', async () => {
  const { createServer, connect } = await import('node:net')
  const server = createServer(socket => socket.write('x')).listen(0)
  await new Promise(resolve => server.once('listening', resolve))
  const { fence } = newFence(
    {
      ...answering,
      get: () =>
        new Promise(resolve =>
          connect (server.address().port).once('data', function () {
            this.destroy()
            resolve(Buffer.from('"hit"'))
          })
        )
    },
    { redisTimeoutMs: 50 }
  )
  const value = fence.fetch('k', async () => 'loaded')
  setTimeout(() => {
    const until = performance.now() + 200
    while (performance.now() < until) {
      /* busy */
    }
  }, 5)
  assert.equal(await value, 'hit')
  server.close()
})

test('unit: an error of Redis is no outage', async () => {
  const errors = []
  const { fence } = newFence(
    {
      ...answering,
      uncache_get: async () => {
        throw new Error('ERR Function not found')
      }
    },
    {
      onEvent: event => {
        if (event.type === 'unfenced') errors.push(event.reason)
      }
    }
  )
  assert.equal(await fence.fetch('k', async () => 1), 1)
  assert.ok(!fence.isAway)
  assert.match(errors[0], /fence_ttl/)
})

test('unit: one warning where fills go unfenced for a minute', async () => {
  const warnings = []
  const listen = warning => {
    if (warning.code === 'UNCACHE_UNFENCED') warnings.push(warning.message)
  }
  process.on('warning', listen)
  const real = performance.now
  let skew = 0
  performance.now = () => real.call(performance) + skew
  let token = null
  const { fence } = newFence({ ...answering, uncache_get: async () => [null, token] })
  const read = () => fence.fetch('k', async () => 1)
  try {
    for (skew of [0, 30_000, 59_000]) await read()
    await sleep(1)
    assert.deepEqual(warnings, [])
    for (skew of [61_000, 62_000, 300_000]) await read()
    await sleep(1)
    assert.equal(warnings.length, 1)
    assert.match(warnings[0], /gives no token/)
    token = Buffer.from('e.1:1')
    await read()
    token = null
    for (skew of [301_000, 362_000]) await read()
    await sleep(1)
    assert.equal(warnings.length, 2)
  } finally {
    performance.now = real
    process.off('warning', listen)
  }
})

test('unit: an onEvent that throws disturbs no reader', async () => {
  const { fence } = newFence(answering, {
    onEvent: () => {
      throw new Error('mine')
    }
  })
  const warned = new Promise(resolve => process.once('warning', resolve))
  assert.equal(await fence.fetch('k', async () => 1), 1)
  assert.match((await warned).message, /mine/)
})

test('unit: the slot of a key is that of its hash tag', () => {
  assert.equal(slotOf('123456789'), 0x31c3)
  assert.equal(slotOf('{user1000}.following'), slotOf('{user1000}.followers'))
  assert.equal(slotOf('foo{}{bar}'), slotOf('foo{}{bar}'))
  assert.notEqual(slotOf('foo{}{bar}'), slotOf('bar'))
  assert.equal(slotOf('foo{{bar}}zap'), slotOf('{{bar}'))
})

test('unit: every option and member that the code has is in the types', () => {
  const types = new URL('../types/', import.meta.url)
  const text = readdirSync(types)
    .map(name => readFileSync(new URL(name, types), 'utf8'))
    .join('\n')
  for (const name of [
    'db',
    'ttlMs',
    'redisTimeoutMs',
    'onEvent',
    'snapshot',
    'snapshots',
    'wait',
    'begin',
    'leaseMs',
    'shadow',
    'encode',
    'decode',
    'fenced',
    'stateOf'
  ]) {
    assert.match(text, new RegExp(`^\\s+${name}\\??\\s*[(:<]`, 'm'), name)
  }
  const { prototype } = Fence
  for (const name of Object.getOwnPropertyNames(prototype)) {
    if (name !== 'constructor') assert.match(text, new RegExp(`\\b${name}\\b`), name)
  }
})
