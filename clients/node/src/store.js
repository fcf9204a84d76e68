// store.js: the part of a drop-in store that all libraries share. It knows texts under keys as
// they are in Redis.
//
// Keys with a prefix of the option fenced are stored by the snapshot of the miss before, and not
// at all without one: a value that comes without a miss, or out of a transaction that has written
// or ended, may be one that no reader should see. Other keys (sessions, rate limits) are stored
// plainly, and counted.

import { adapt, escapeGlob, textOf } from './client.js'
import { Circuit } from './circuit.js'
import { Counts, REASONS } from './counts.js'
import { checkDatabase } from './database.js'
import { checkOptions } from './options.js'
import { currentRequest, request } from './request.js'

export class Store {
  #redis
  #circuit
  #counts
  #fenced
  #ttlMs
  #stateOf
  #db
  #plain = 0

  constructor (redis, options) {
    checkOptions('store', options)
    if (
      !Array.isArray(options.fenced) ||
      options.fenced.some(prefix => typeof prefix !== 'string')
    ) {
      throw new TypeError("fenced must be an array of prefixes, such as ['user:']")
    }
    this.#redis = adapt(redis)
    this.#db = options.db === undefined ? null : options.db
    if (this.#db) checkDatabase(this.#db)
    this.#counts = new Counts(options.onEvent)
    this.#circuit = new Circuit(this.#redis, options.redisTimeoutMs ?? 50, (type, error) =>
      this.#counts.tell(type, { error })
    )
    this.#fenced = options.fenced
    this.#ttlMs = options.ttlMs
    this.#stateOf = options.stateOf ?? stateOfJson
  }

  /** As those of a Fence, and plain: values that were stored without a fence. */
  get counters () {
    return { ...this.#counts.counters, plain: this.#plain }
  }

  /** request(work), or request(db, work) where the reads go to another connection: a request. */
  request (db, work) {
    if (work !== undefined) return request(db, work)
    if (!this.#db) throw new TypeError('request(work) needs the option db; or request(db, work)')
    return request(this.#db, db)
  }

  close () {
    this.#circuit.close()
  }

  isFenced (key) {
    return this.#fenced.some(prefix => key.startsWith(prefix))
  }

  // The text, or undefined.
  async get (key) {
    return (await this.getMany([key]))[0]
  }

  async getMany (keys) {
    const raws = await this.#circuit.getAll(keys)
    const found = keys.map((key, i) => this.#found(key, raws[i]))
    await this.#miss(found.filter(({ state }) => state !== 'plain' && state !== 'good'))
    return found.map(({ key, raw, state }) => {
      const isHit = state !== 'none' && state !== 'broken'
      if (state !== 'plain') this.#counts.count(isHit ? 'hit' : 'miss', key)
      return isHit ? raw?.toString() : undefined
    })
  }

  #found (key, raw) {
    if (raw instanceof Error) {
      this.#counts.reasonOf(key, raw)
      return { key, raw: null, state: this.isFenced(key) ? 'none' : 'plain', isAway: true }
    }
    if (!this.isFenced(key)) return { key, raw, state: 'plain' }
    return { key, raw, state: raw === null ? 'none' : this.#stateOf(raw.toString()) }
  }

  // Whether it is stored.
  async set (key, text, ttlMs) {
    return (await this.setMany([{ key, text, ttlMs }]))[0]
  }

  // entries: {key, text, ttlMs}
  async setMany (entries) {
    const stored = new Map()
    for (const { key, text, ttlMs } of entries) {
      if (!this.isFenced(key)) stored.set(key, await this.#setPlainly(key, text, ttlMs))
    }
    const fenced = entries.filter(({ key }) => this.isFenced(key))
    if (fenced.length > 0) await this.#setFenced(fenced, stored)
    return entries.map(({ key }) => stored.get(key) ?? false)
  }

  async #setFenced (entries, stored) {
    const fills = []
    const usable = await this.#usableMisses(entries.map(({ key }) => key))
    for (const { key, text, ttlMs } of entries) {
      const ms = Math.ceil(ttlMs ?? this.#ttlMs)
      const { miss, reason } = ms > 0 ? usable.get(key) : { reason: REASONS.expired }
      if (reason) this.#counts.count('unfenced', key, { reason })
      else fills.push([key, miss.snapshot, String(ms), text])
    }
    const replies = await this.#circuit.callAll('uncache_set', fills)
    fills.forEach(([key], i) => {
      if (replies[i] instanceof Error) {
        this.#counts.count('unfenced', key, { reason: this.#counts.reasonOf(key, replies[i]) })
        return
      }
      stored.set(key, Number(replies[i]) === 1)
      this.#counts.count(stored.get(key) ? 'stored' : 'refused', key)
    })
  }

  async delete (key) {
    try {
      return Number(await this.#circuit.run(key, () => this.#redis.unlink(key))) === 1
    } catch (error) {
      this.#counts.reasonOf(key, error)
      return false
    }
  }

  async deleteMany (keys) {
    return (await Promise.all(keys.map(key => this.delete(key)))).some(Boolean)
  }

  async has (key) {
    const raw = await this.#raw(key)
    return (
      raw !== null &&
      raw !== undefined &&
      (!this.isFenced(key) || this.#stateOf(raw.toString()) !== 'broken')
    )
  }

  // Every key with the prefix; the fence's own are not among them.
  async clear (prefix) {
    if (prefix === '')
      throw new Error('clear() needs a namespace: all keys of a Redis are too many')
    for await (const names of this.#redis.scan(escapeGlob(prefix) + '*')) {
      await this.deleteMany(names.filter(name => !name.startsWith('uncache:')))
    }
  }

  async *entries(prefix) {
    for await (const names of this.#redis.scan(escapeGlob(prefix) + '*')) {
      for (const name of names) {
        const raw = name.startsWith('uncache:') ? null : await this.#raw(name)
        if (raw) yield [name, raw.toString()]
      }
    }
  }

  // The bytes, null for none, undefined where Redis does not say.
  async #raw (key) {
    try {
      return await this.#circuit.run(key, () => this.#redis.get(key))
    } catch (error) {
      this.#counts.reasonOf(key, error)
      return undefined
    }
  }

  // Ask for tokens and remember snapshots for them. Another reader may have been faster: then its
  // value is the answer, which goes into what was found.
  async #miss (found) {
    const missed = found.filter(({ isAway }) => !isAway)
    const absent = missed.filter(({ state }) => state === 'none')
    const tokens = await this.#tokens('uncache_get', absent)
    const present = missed.filter(({ state }) => state === 'broken' || state === 'old')
    tokens.push(...(await this.#tokens('uncache_token', present)))
    try {
      if (tokens.length > 0) await currentRequest()?.remember(tokens)
    } catch (error) {
      this.#counts.reasonOf(tokens[0][0], error)
    }
  }

  async #tokens (name, found) {
    const calls = found.map(({ key }) => [key])
    const replies = await this.#circuit.callAll(name, calls)
    const tokens = []
    found.forEach((one, i) => {
      if (replies[i] instanceof Error) return this.#counts.reasonOf(one.key, replies[i])
      const [raw, token] = Array.isArray(replies[i]) ? replies[i] : [null, replies[i]]
      if (raw !== null) Object.assign(one, this.#found(one.key, raw))
      else if (token !== null) tokens.push([one.key, textOf(token)])
    })
    return tokens
  }

  // key -> {miss}, if what this request has read since its miss may be stored, or {reason}.
  async #usableMisses (keys) {
    const request = currentRequest()
    const none = this.#circuit.isOpen ? REASONS.away : REASONS.noMiss
    const usable = new Map()
    for (const key of keys) {
      const miss = request?.missOf(key)
      usable.set(key, miss ? { miss } : { reason: request ? none : REASONS.noRequest })
    }
    const misses = [...usable.values()].map(({ miss }) => miss).filter(Boolean)
    if (misses.length === 0) return usable
    try {
      const { hasWritten, hasEnded } = await request.state(misses)
      for (const [key, { miss }] of usable) {
        if (miss && hasEnded(miss)) usable.set(key, { reason: REASONS.hasEnded })
        else if (miss && hasWritten) usable.set(key, { reason: REASONS.noSnapshot })
      }
    } catch (error) {
      for (const key of keys) usable.set(key, { reason: this.#counts.reasonOf(key, error) })
    }
    return usable
  }

  async #setPlainly (key, text, ttlMs) {
    try {
      await this.#circuit.run(key, () =>
        ttlMs === undefined
          ? this.#redis.setForever(key, text)
          : this.#redis.set(key, text, Math.max(1, Math.ceil(ttlMs)))
      )
      this.#plain++
      return true
    } catch (error) {
      this.#counts.reasonOf(key, error)
      return false
    }
  }
}

// What a text under a fenced key is: good, old (the library will have it made again, and may serve
// it meanwhile), or broken (a miss).
function stateOfJson (text) {
  try {
    JSON.parse(text)
    return 'good'
  } catch {
    return 'broken'
  }
}
