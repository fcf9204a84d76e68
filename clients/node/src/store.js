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
    let raw = await this.#raw(key)
    if (!this.isFenced(key)) return raw?.toString()
    if (raw === undefined) return this.#missed(key) // Redis is away
    let state = raw === null ? 'none' : this.#stateOf(raw.toString())
    if (state !== 'good') ({ raw, state } = await this.#miss(key, raw, state))
    if (state === 'none' || state === 'broken') return this.#missed(key)
    this.#counts.count('hit', key)
    return raw.toString()
  }

  #missed (key) {
    this.#counts.count('miss', key)
    return undefined
  }

  async getMany (keys) {
    return Promise.all(keys.map(key => this.get(key)))
  }

  // Whether it is stored.
  async set (key, text, ttlMs) {
    if (!this.isFenced(key)) return this.#setPlainly(key, text, ttlMs)
    const ms = Math.ceil(ttlMs ?? this.#ttlMs)
    const { miss, reason } = ms > 0 ? await this.#usableMiss(key) : { reason: REASONS.expired }
    if (reason) {
      this.#counts.count('unfenced', key, { reason })
      return false
    }
    try {
      const stored =
        Number(
          await this.#circuit.run(key, () =>
            this.#redis.call('uncache_set', key, miss.snapshot, String(ms), text)
          )
        ) === 1
      this.#counts.count(stored ? 'stored' : 'refused', key)
      return stored
    } catch (error) {
      this.#counts.count('unfenced', key, { reason: this.#counts.reasonOf(key, error) })
      return false
    }
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

  // Ask for a token and remember a snapshot for it. Another reader may have been faster: then its
  // value is the answer.
  async #miss (key, raw, state) {
    try {
      const name = state === 'none' ? 'uncache_get' : 'uncache_token'
      const reply = await this.#circuit.run(key, () => this.#redis.call(name, key))
      const [value, token] = Array.isArray(reply) ? reply : [null, reply]
      if (value !== null) {
        const stateNow = this.#stateOf(value.toString())
        return stateNow === 'good'
          ? { raw: value, state: 'good' }
          : this.#miss(key, value, stateNow)
      }
      if (token !== null) await currentRequest()?.remember(key, textOf(token))
    } catch (error) {
      this.#counts.reasonOf(key, error)
    }
    return { raw, state }
  }

  // The miss of this request, if what it has read since may be stored.
  async #usableMiss (key) {
    const request = currentRequest()
    if (!request) return { reason: REASONS.noRequest }
    const miss = request.missOf(key)
    if (!miss) return { reason: this.#circuit.isOpen ? REASONS.away : REASONS.noMiss }
    try {
      const { hasWritten, hasEnded } = await request.stateOf(miss)
      if (hasEnded) return { reason: REASONS.hasEnded }
      if (hasWritten) return { reason: REASONS.noSnapshot }
      return { miss }
    } catch (error) {
      return { reason: this.#counts.reasonOf(key, error) }
    }
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
