// fence.js: read through a cache that pg_uncache invalidates.
//
// A miss takes a token from Redis, then a snapshot of the database that is bound to it, then reads,
// then asks Redis to store the value by that snapshot. Redis refuses where the snapshot has not
// seen every transaction that invalidated the key. Whatever fails on the way: the value is served,
// and not stored. No failure of Redis reaches the caller.

import { randomBytes } from 'node:crypto'
import { adapt, isReply, textOf } from './client.js'
import { Circuit } from './circuit.js'
import { Counts, REASONS } from './counts.js'
import { Database, isMissing } from './database.js'
import { Flights } from './flights.js'
import { currentRequest } from './request.js'
import { checkKey, checkMs, checkOptions } from './options.js'
import { Shadow } from './shadow.js'

const LEASE_RETRY_MS = 60_000 // how long functions that know no lease are not asked for one
const NONCE = /^[0-9a-f]{32}$/

const json = {
  encode: JSON.stringify,
  decode: bytes => JSON.parse(bytes.toString())
}

export class Fence {
  #redis
  #circuit
  #db
  #options
  #counts
  #flights = new Flights()
  #shadow
  #leaseAgain = 0

  /**
   * redis: a client of ioredis or redis. options: see index.d.ts.
   */
  constructor (redis, options) {
    checkOptions('Fence', options)
    this.#redis = adapt(redis)
    this.#db = options.db === undefined ? null : new Database(options.db, options.begin)
    if (!this.#db && !options.snapshot) throw new TypeError('the option db or snapshot is missing')
    this.#options = { encode: json.encode, decode: json.decode, ...options }
    this.#counts = new Counts(options.onEvent)
    this.#circuit = new Circuit(this.#redis, options.redisTimeoutMs ?? 50, (type, error) =>
      this.#counts.tell(type, { error })
    )
    this.#shadow = options.shadow > 0 ? this.#newShadow(options) : null
  }

  /** What has come of the calls so far: hit, miss, stored, refused, unfenced, waited. */
  get counters () {
    return this.#counts.counters
  }

  /** Whether a Redis that was away is looked for. */
  get isAway () {
    return this.#circuit.isOpen
  }

  /** Resolves when no shadow check is under way. */
  async idle () {
    await this.#shadow?.idle()
  }

  /** Stops what runs in the background. The client and the database are left open. */
  close () {
    this.#circuit.close()
    this.#shadow?.close()
  }

  /**
   * The value of the key: from the cache, or from load(), which is then cached. load runs on the
   * connection, or the server, that the option snapshot asks. key null: load(), not cached.
   */
  async fetch (key, load, options = {}) {
    if (key === null) return this.#notCached(load)
    return (await this.#fetch(checkKey(key), this.#byLoad(key, load, options), options)).value
  }

  /**
   * The rows of the statement, as plain objects, as JSON has them: one statement reads them and
   * the snapshot, so that a miss costs no further round trip.
   */
  async fetchSql (key, sql, parameters = [], options = {}) {
    const { db } = this.#source(options)
    if (!db) throw new TypeError('fetchSql() needs the option db')
    const read = async token => {
      const { snapshot, rows, error } = await db.readWithSnapshot(sql, parameters, token)
      if (error) this.#counts.tell('error', { key, error })
      return { snapshot, value: JSON.parse(rows), reason: error && REASONS.noExtension }
    }
    return (await this.#fetch(checkKey(key), read, options)).value
  }

  /**
   * The value of the key, for a load that needs several queries: load(tx) runs in a transaction of
   * its own that may not write, and whose first statement has taken the snapshot.
   */
  async transaction (key, load, options = {}) {
    const db = options.db === undefined ? this.#db : new Database(options.db, options.begin)
    if (!db) throw new TypeError('transaction() needs the option db')
    const read = token =>
      db.readOnly(async (tx, query) => {
        const [row] = await query('SELECT uncache.snapshot($1::text) AS snapshot', [token])
        return { snapshot: row.snapshot, value: await load(tx) }
      })
    return (await this.#fetch(checkKey(key), read, options)).value
  }

  /**
   * The values of many keys, as a Map: one MGET, one pipeline, one snapshot, one load.
   * loadMany(missing) gives a Map, an object or an array in the order of the missing keys; null
   * for a key without a row.
   */
  async fetchMany (keys, loadMany, options = {}) {
    const ttlMs = this.#ttlOf(options)
    const values = new Map([...new Set(keys)].map(key => [checkKey(key), undefined]))
    const missing = await this.#lookMany([...values.keys()], values)
    if (missing.size === 0) return values

    const snapshots = await this.#snapshotMany(missing, options)
    const loaded = await loadMany([...missing.keys()])
    const fills = []
    for (const [i, key] of [...missing.keys()].entries()) {
      const value = nth(loaded, key, i)
      const bytes = this.#encode(key, value)
      values.set(key, value)
      const snapshot = snapshots.get(key)
      if (typeof snapshot === 'string') fills.push([key, snapshot, String(ttlMs), bytes])
      else this.#counts.count('unfenced', key, { reason: snapshot?.reason ?? REASONS.noSnapshot })
    }
    await this.#storeMany(fills)
    return values
  }

  /**
   * For what no row names, as page 3 of a list: work(keyOf) runs with a function that makes the key
   * of a page by the nonces of the tags, which an invalidation of a tag replaces. Where a nonce
   * can't be cached the key is null, and fetch(null, load) caches nothing.
   * The nonces are read, or stored, before work begins: the tokens of pages must be younger.
   */
  async tags (tags, work, options = {}) {
    const nonces = await Promise.all(tags.map(tag => this.#nonce(checkKey(tag), options)))
    const suffix = nonces.includes(null) ? null : nonces.join('.')
    return work(page => (suffix === null ? null : `${checkKey(page)}:${suffix}`))
  }

  async #nonce (tag, options) {
    const read = this.#byLoad(tag, () => randomBytes(16).toString('hex'), options)
    const nonce = { encode: text => text, decode: bytes => bytes.toString('latin1') }
    const { value, state } = await this.#fetch(tag, read, { ...options, ...nonce, noShadow: true })
    return (state === 'hit' || state === 'stored') && NONCE.test(value) ? value : null
  }

  async #notCached (load) {
    this.#counts.count('miss', null)
    this.#counts.count('unfenced', null, { reason: REASONS.noSnapshot })
    return load()
  }

  #ttlOf (options) {
    return checkMs('ttlMs', options.ttlMs ?? this.#options.ttlMs, Number.MAX_SAFE_INTEGER)
  }

  // Where a call reads: what it was told; what the Fence was told by hand; the request() that is
  // under way; the Fence's database. A connection of its own may have written: its reader sees what
  // others must not see, and shares no flight.
  #source (options) {
    if (options.snapshot) return { ...options, db: null, isOwn: true }
    if (options.db !== undefined) return { db: new Database(options.db), isOwn: true }
    const { snapshot, snapshots } = this.#options
    if (snapshot) return { snapshot, snapshots, db: this.#db, isOwn: false }
    const db = currentRequest()?.db ?? this.#db
    return { db, isOwn: db.db !== this.#db.db }
  }

  // A read is a function that takes a token (or null) to {snapshot, value, reason}.
  #byLoad (key, load, options) {
    if (typeof load !== 'function') throw new TypeError('load must be a function')
    return async token => {
      const { snapshot, reason } = await this.#snapshot(key, token, options)
      return { snapshot, reason, value: await load() }
    }
  }

  async #snapshot (key, token, options) {
    if (token === null) return { snapshot: null }
    try {
      const { snapshot, db } = this.#source(options)
      return { snapshot: (await (snapshot ? snapshot(token) : db.snapshot(token))) ?? null }
    } catch (error) {
      this.#counts.tell('error', { key, error })
      return { snapshot: null, reason: isMissing(error) ? REASONS.noExtension : error.message }
    }
  }

  async #fetch (key, read, options) {
    const ttlMs = this.#ttlOf(options)
    const coder = options.encode ? options : this.#options
    const found = await this.#look(key, coder)
    if (found.state === 'hit') {
      this.#counts.count('hit', key)
      if (this.#shadow?.isChosen(options)) await this.#shadow.check(key, found.raw, read, ttlMs)
      return found
    }
    this.#counts.count('miss', key)
    const fly = () => this.#fill(key, read, ttlMs, coder, found)
    return this.#source(options).isOwn ? fly() : this.#flights.run(key, fly)
  }

  // {state: 'hit', value, raw} or {state: 'miss', isBroken, reason}
  async #look (key, coder) {
    try {
      return this.#decode(await this.#circuit.run(key, () => this.#redis.get(key)), coder)
    } catch (error) {
      return { state: 'miss', reason: this.#counts.reasonOf(key, error) }
    }
  }

  #decode (raw, coder) {
    if (raw === null) return { state: 'miss' }
    try {
      return { state: 'hit', value: coder.decode(raw), raw }
    } catch {
      return { state: 'miss', isBroken: true }
    }
  }

  async #fill (key, read, ttlMs, coder, found) {
    const got = found.reason ? { token: null, ...found } : await this.#token(key, coder, found)
    if (got.state === 'hit') return got
    const token = got.token
    let result
    try {
      result = await read(token)
      if (result.snapshot !== null) result.bytes = encodeWith(coder, key, result.value)
      else encodeWith(coder, key, result.value)
    } catch (error) {
      await this.#release(key, got)
      throw error
    }
    if (result.snapshot === null) {
      await this.#release(key, got)
      this.#notStored(key, got, result.reason)
      return { state: 'unfenced', value: result.value }
    }
    return { state: await this.#store(key, result, ttlMs), value: result.value }
  }

  #notStored (key, got, reason) {
    if (got.isLeased) return
    this.#counts.count('unfenced', key, {
      reason: got.reason ?? reason ?? (got.token === null ? REASONS.noToken : REASONS.noSnapshot)
    })
  }

  async #store (key, { snapshot, bytes }, ttlMs) {
    try {
      const stored = await this.#circuit.run(key, () =>
        this.#redis.call('uncache_set', key, snapshot, String(ttlMs), bytes)
      )
      const state = Number(stored) === 1 ? 'stored' : 'refused'
      this.#counts.count(state, key)
      return state
    } catch (error) {
      this.#counts.count('unfenced', key, { reason: this.#counts.reasonOf(key, error) })
      return 'unfenced'
    }
  }

  // A token, or null; or a hit, where another reader was faster.
  async #token (key, coder, { isBroken }) {
    try {
      const leaseMs = this.#leaseMs()
      let reply = await this.#askForToken(key, coder, isBroken, leaseMs)
      if (reply.waitMs === undefined) return reply
      this.#counts.count('waited', key)
      const deadline = performance.now() + reply.waitMs
      while (performance.now() < deadline) {
        await sleep(10 + 40 * Math.random())
        reply = await this.#askForToken(key, coder, isBroken, leaseMs)
        if (reply.waitMs === undefined) return reply
      }
      return { token: null, isLeased: true }
    } catch (error) {
      return { token: null, reason: this.#counts.reasonOf(key, error) }
    }
  }

  async #askForToken (key, coder, isBroken, leaseMs) {
    if (isBroken) {
      const raw = await this.#circuit.run(key, () => this.#redis.getFromRedis(key))
      const found = this.#decode(raw, coder)
      if (found.state === 'hit') return found
    }
    let [raw, token, wait] = await this.#callForToken(
      isBroken ? 'uncache_token' : 'uncache_get',
      key,
      leaseMs
    )
    if (raw !== null && raw !== undefined) {
      const found = this.#decode(raw, coder)
      if (found.state === 'hit') return found
      ;[raw, token, wait] = await this.#callForToken('uncache_token', key, leaseMs)
    }
    if (wait !== undefined) return { waitMs: Number(wait) }
    return { token: textOf(token), leaseMs }
  }

  // [value], [null, token] or [null, null, waitMs], from both functions.
  async #callForToken (name, key, leaseMs) {
    const words = leaseMs ? [String(leaseMs)] : []
    try {
      const reply = await this.#circuit.run(key, () => this.#redis.call(name, key, ...words))
      return Array.isArray(reply) ? reply : [null, reply]
    } catch (error) {
      // Functions of before the lease: an argument too many.
      if (!leaseMs || !isReply(error) || !/takes 1 key/.test(error.message)) throw error
      this.#leaseAgain = performance.now() + LEASE_RETRY_MS
      return this.#callForToken(name, key, 0)
    }
  }

  #leaseMs () {
    const { leaseMs = 0 } = this.#options
    return leaseMs && performance.now() >= this.#leaseAgain ? leaseMs : 0
  }

  // The lease of a token that will not be used ends at once; others may ask the database.
  async #release (key, { token, leaseMs }) {
    if (!leaseMs || token === null) return
    await this.#circuit
      .run(key, () => this.#redis.call('uncache_set', key, token, '1', ''))
      .catch(error => this.#counts.reasonOf(key, error))
  }

  #encode (key, value) {
    return encodeWith(this.#options, key, value)
  }

  // Fills in the hits. Returns the other keys: key -> {token, reason}.
  async #lookMany (keys, values) {
    const missing = new Map()
    const ask = { uncache_get: [], uncache_token: [] }
    const raws = await this.#circuit.getAll(keys)
    keys.forEach((key, i) => {
      const found = this.#found(key, raws[i])
      if (found.state === 'hit') return this.#hitMany(key, found, values)
      this.#counts.count('miss', key)
      missing.set(key, { token: null, reason: found.reason })
      if (!found.reason) ask[found.isBroken ? 'uncache_token' : 'uncache_get'].push(key)
    })
    for (const [name, asked] of Object.entries(ask)) {
      await this.#tokensOf(name, asked, missing, values)
    }
    return missing
  }

  #found (key, raw) {
    if (!(raw instanceof Error)) return this.#decode(raw, this.#options)
    return { state: 'miss', reason: this.#counts.reasonOf(key, raw) }
  }

  #hitMany (key, { value }, values) {
    this.#counts.count('hit', key)
    values.set(key, value)
  }

  async #tokensOf (name, keys, missing, values) {
    const again = []
    const calls = keys.map(key => [key])
    const replies = await this.#circuit.callAll(name, calls)
    keys.forEach((key, i) => {
      if (replies[i] instanceof Error) {
        missing.get(key).reason = this.#counts.reasonOf(key, replies[i])
        return
      }
      const [raw, token] = Array.isArray(replies[i]) ? replies[i] : [null, replies[i]]
      const found = this.#decode(raw ?? null, this.#options)
      if (found.state === 'hit') {
        values.set(key, found.value)
        missing.delete(key)
      } else if (found.isBroken) {
        again.push(key)
      } else {
        missing.get(key).token = textOf(token)
        if (token === null) missing.get(key).reason = REASONS.noToken
      }
    })
    if (again.length > 0) await this.#tokensOf('uncache_token', again, missing, values)
  }

  // key -> snapshot, or {reason}
  async #snapshotMany (missing, options) {
    const snapshots = new Map()
    const tokens = []
    for (const [key, { token, reason }] of missing) {
      if (token === null) snapshots.set(key, { reason })
      else tokens.push([key, token])
    }
    if (tokens.length === 0) return snapshots
    try {
      const taken = await this.#takeMany(
        tokens.map(([, token]) => token),
        options
      )
      tokens.forEach(([key], i) => snapshots.set(key, taken[i] ?? { reason: REASONS.noSnapshot }))
    } catch (error) {
      this.#counts.tell('error', { error })
      const reason = isMissing(error) ? REASONS.noExtension : error.message
      for (const [key] of tokens) snapshots.set(key, { reason })
    }
    return snapshots
  }

  async #takeMany (tokens, options) {
    const { snapshot, snapshots, db } = this.#source(options)
    if (snapshots) return snapshots(tokens)
    if (!snapshot) return db.snapshots(tokens)
    const taken = []
    for (const token of tokens) taken.push(await snapshot(token))
    return taken
  }

  async #storeMany (fills) {
    const replies = await this.#circuit.callAll('uncache_set', fills)
    fills.forEach(([key], i) => {
      if (replies[i] instanceof Error) {
        this.#counts.count('unfenced', key, { reason: this.#counts.reasonOf(key, replies[i]) })
      } else {
        this.#counts.count(Number(replies[i]) === 1 ? 'stored' : 'refused', key)
      }
    })
  }

  #newShadow (options) {
    const wait = options.wait ?? (this.#db && (() => this.#db.wait()))
    if (!wait) throw new TypeError('shadow needs the option db or wait')
    return new Shadow({
      share: options.shadow,
      wait,
      encode: (key, value) => this.#encode(key, value),
      redis: this.#redis,
      circuit: this.#circuit,
      tell: (type, details) => this.#counts.tell(type, details)
    })
  }
}

function encodeWith (coder, key, value) {
  const bytes = coder.encode(value)
  if (typeof bytes === 'string') return bytes
  if (bytes instanceof Uint8Array) {
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
  throw new TypeError(
    value === undefined
      ? `the load of "${key}" gave undefined; give null where there is no row`
      : `the value of "${key}" can't be encoded: encode gave ${typeof bytes}`
  )
}

function nth (loaded, key, i) {
  const value =
    loaded instanceof Map
      ? loaded.get(key)
      : Array.isArray(loaded)
        ? loaded[i]
        : Object.hasOwn(loaded ?? {}, key)
          ? loaded[key]
          : undefined
  if (value !== undefined) return value
  throw new TypeError(`loadMany gave nothing for "${key}"; give null where there is no row`)
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
