// conformance.js: the cases of clients/conformance, by each library in each version.
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { Fence } from '../src/index.js'
import { assert, skip, test } from './tap.js'
import { env, libraries, onPgbouncer, onStandby, pool, signal, sleep, until } from './servers.js'

const file = JSON.parse(readFileSync(`${env.CONFORMANCE}/cases.json`))
const COUNTERS = ['hit', 'miss', 'stored', 'refused', 'unfenced', 'waited']
const db = pool()
const places = { primary: db, standby: onStandby(), pgbouncer: onPgbouncer() }
const first = ({ rows }) => (rows.length === 0 ? null : Object.values(rows[0])[0])

// What is expected of a reply, in words if it is not so.
function compare (reply, expected) {
  if (expected === undefined) return
  if (reply instanceof Error) {
    if (expected?.error && reply.message.includes(expected.error)) return
    throw reply
  }
  if (expected?.any) return assert.ok(reply !== null, 'there is nothing')
  if ('json' in Object(expected)) return assert.deepEqual(JSON.parse(reply), expected.json)
  if (Array.isArray(expected)) {
    assert.equal(reply.length, expected.length, `an array of ${expected.length}`)
    return expected.forEach((item, i) => compare(reply[i], item))
  }
  assert.deepEqual(reply, expected)
}

class Case {
  saved = {}
  loads = 0

  constructor (redis, options) {
    this.redis = redis
    this.options = { ...file.options, ...options, db }
    this.fence = new Fence(redis.client, this.options)
  }

  word (word) {
    return typeof word === 'string' && word[0] === '$' ? this.saved[word.slice(1)] : word
  }

  async run (steps) {
    for (const step of steps) {
      try {
        await this.step(step)
      } catch (error) {
        error.message = `${JSON.stringify(step)}: ${error.message}`
        throw error
      }
    }
  }

  async step (step) {
    const kind = Object.keys(step)[0]
    return this[kind](step)
  }

  keep (step, reply) {
    if (step.save) this.saved[step.save] = step.at === undefined ? reply : reply[step.at]
    compare(reply, step.reply)
  }

  async sql (step) {
    const on = step.on ? places[step.on] : this.session
    const result = await on.query(
      step.sql,
      step.params?.map(word => this.word(word))
    )
    this.keep(step, first(result))
  }

  async command (step) {
    const words = step.redis.map(word => this.word(word))
    this.keep(step, await this.redis.send(words).catch(error => error))
  }

  // A load by the statement, in the session; bound to it if the step has statements around.
  load (session, step) {
    return async () => {
      this.loads++
      const value = first(await session.query(step.load))
      if (step.during) await this.run(step.during)
      return value
    }
  }

  async timed (step, call) {
    const began = performance.now()
    this.loads = 0
    const value = await call().catch(error => {
      if (step.fails) return error
      throw error
    })
    if (step.fails) return assert.ok(value instanceof Error, 'the call should fail')
    if ('value' in step) assert.deepEqual(value, step.value)
    if ('loads' in step) assert.equal(this.loads, step.loads, 'loads')
    const took = performance.now() - began
    if (step.atMostMs) assert.ok(took <= step.atMostMs, `took ${took} ms`)
  }

  async fetch (step) {
    const session = await places[step.on ?? 'primary'].connect()
    try {
      const own = step.before || step.on ? { db: session } : {}
      for (const statement of step.before ?? []) await session.query(statement)
      await this.timed(step, () => this.fence.fetch(step.fetch, this.load(session, step), own))
      for (const statement of step.after ?? []) await session.query(statement)
    } finally {
      session.release()
    }
  }

  async fetchMany (step) {
    await this.timed(step, async () => {
      const load = async keys => {
        this.loads++
        const { rows } = await db.query({
          text: step.load,
          values: step.load.includes('$1') ? [keys] : [],
          rowMode: 'array'
        })
        const found = new Map(rows)
        return new Map(keys.map(key => [key, found.get(key) ?? null]))
      }
      return Object.fromEntries(await this.fence.fetchMany(step.fetchMany, load))
    })
  }

  async fetchSql (step) {
    await this.timed(step, () => this.fence.fetchSql(step.fetchSql, step.sql, step.params))
  }

  async transaction (step) {
    await this.timed(step, () =>
      this.fence.transaction(step.transaction, async tx => {
        let value
        for (const statement of step.statements) value = first(await tx.query(statement))
        return /^\d+$/.test(value) ? Number(value) : value
      })
    )
  }

  async tags (step) {
    await this.timed(step, () =>
      this.fence.tags(step.tags, keyOf => this.fence.fetch(keyOf(step.page), this.load(db, step)))
    )
  }

  async undefined (step) {
    const value = await this.fence
      .fetch(step.undefined, async () => undefined)
      .catch(error => error)
    assert.ok(value === null || value instanceof TypeError)
    assert.notEqual(await this.redis.send(['GET', step.undefined]), '')
  }

  async bytes (step) {
    const bytes = Buffer.from(step.base64, 'base64')
    const fence = new Fence(this.redis.client, { ...this.options, encode: b => b, decode: b => b })
    const loads = [async () => bytes, async () => Buffer.from('another')]
    for (const load of loads) assert.deepEqual(await fence.fetch(step.bytes, load), bytes)
  }

  async readers (step) {
    this.loads = 0
    const load = async () => {
      const value = await this.load(db, step)()
      await sleep(50)
      return value
    }
    const values = await Promise.all(
      Array.from({ length: step.readers }, () => this.fence.fetch(step.fetch, load))
    )
    for (const value of values) assert.equal(value, step.value)
    assert.ok(this.loads <= step.loadsAtMost, `${this.loads} loads`)
  }

  async signal (step) {
    signal(step.signal)
  }

  async counters (step) {
    for (const [name, value] of Object.entries(step.counters)) {
      assert.ok(COUNTERS.includes(name), name)
      assert.equal(this.fence.counters[name], value, name)
    }
  }

  async until (step) {
    let last
    await until(
      JSON.stringify(step.until),
      () =>
        this.step(step.until).then(
          () => true,
          error => {
            last = error
          }
        ),
      step.seconds
    ).catch(error => {
      throw last ?? error
    })
  }
}
Case.prototype.redis = undefined
Case.prototype.command = Case.prototype.command

function newRedis ({ client, end }) {
  const send = words =>
    client.sendCommand && !client.call
      ? client.sendCommand(words)
      : client.call(words[0], ...words.slice(1))
  return { client, end, send }
}

const knowsLeases = async redis =>
  !(
    (await redis
      .send(['FCALL', 'uncache_get', '1', 'conf:lease', '1000'])
      .catch(error => error)) instanceof Error
  )

async function runCase (name, { options, needs = [], steps }) {
  const redis = newRedis(await libraries[name]())
  const one = new Case(redis, options)
  one.session = await db.connect()
  try {
    for (const statement of file.reset) await one.session.query(statement)
    await one.run(steps.map(step => (step.redis ? { command: true, ...step } : step)))
  } finally {
    if (needs.includes('signal')) signal('CONT')
    one.session.release()
    one.fence.close()
    redis.end()
  }
}

for (const statement of file.setup) await db.query(statement)
const probe = newRedis(await libraries.ioredis6())
const leases = await knowsLeases(probe)
probe.end()

for (const name of Object.keys(libraries)) {
  for (const one of file.cases) {
    const title = `${name}: ${one.name}`
    // The protocol is the same for all.
    if (one.name.startsWith('protocol:') && name !== 'ioredis6') continue
    if (one.needs?.includes('lease') && !leases) skip(title, 'the functions know no lease')
    else test(title, () => runCase(name, one))
  }
}
assert.ok(isDeepStrictEqual(file.version, 1), 'cases.json has another version')
