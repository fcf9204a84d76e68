// An L1 cache: a map in the process, emptied by uncache.stream. Node and ioredis.
import Redis from 'ioredis'

const BATCH = 100 // entries of one XREAD

const after = (a, b) => { // whether entry a is later than entry b
  const [[ms, n], [otherMs, otherN]] = [a, b].map(id => id.split('-').map(BigInt))
  return ms > otherMs || (ms === otherMs && n > otherN)
}

export class L1 {
  #values = new Map()
  #reads = new Map() // key -> the reads of it that are under way
  #last = null // id of the last entry that was read; null: nothing may be kept
  #heardAt = -Infinity
  #closed = false
  #redis

  // staleMs: a value older than that is given only while the stream is heard.
  constructor (url, { stream = 'uncache:deleted', staleMs = 1000, maxKeys = 10000 } = {}) {
    Object.assign(this, { stream, staleMs, maxKeys })
    this.#redis = new Redis(url, {
      commandTimeout: staleMs * 2, // a Redis that hangs answers no XREAD
      maxRetriesPerRequest: 0,
      retryStrategy: tries => Math.min(50 * tries, staleMs)
    })
    this.#redis.on('error', () => {}) // the reading below fails and begins again
    this.done = this.#listen()
  }

  // The value of a key; load(key) reads it from Redis or the database.
  async get (key, load) {
    const hears = performance.now() - this.#heardAt < this.staleMs
    if (hears && this.#values.has(key)) return this.#values.get(key)

    const read = { keep: hears } // the stream must be heard since before the reading begins
    if (!this.#reads.has(key)) this.#reads.set(key, new Set())
    const reads = this.#reads.get(key).add(read)
    try {
      const value = await load(key)
      if (read.keep) this.#keep(key, value)
      return value
    } finally {
      reads.delete(read)
      if (reads.size === 0) this.#reads.delete(key)
    }
  }

  get size () { return this.#values.size }

  async close () {
    this.#closed = true
    this.#redis.disconnect()
    await this.done
  }

  #keep (key, value) {
    this.#values.delete(key)
    this.#values.set(key, value)
    if (this.#values.size > this.maxKeys) this.#values.delete(this.#values.keys().next().value)
  }

  // Forget these keys, and have reads of them that are under way not be kept.
  #forget (is) {
    for (const key of this.#values.keys()) if (is(key)) this.#values.delete(key)
    for (const [key, reads] of this.#reads) if (is(key)) for (const read of reads) read.keep = false
  }

  #forgetKey (key) {
    this.#values.delete(key)
    for (const read of this.#reads.get(key) ?? []) read.keep = false
  }

  #forgetAll () { this.#forget(() => true) }

  #apply ([id, fields]) {
    const entry = {}
    for (let i = 0; i < fields.length; i += 2) entry[fields[i]] = fields[i + 1]
    for (const key of JSON.parse(entry.keys ?? '[]')) this.#forgetKey(key)
    for (const glob of JSON.parse(entry.patterns ?? '[]')) {
      const head = glob.match(/^[^*?[\\]*/)[0] // what it begins with: more than it matches
      this.#forget(key => key.startsWith(head))
    }
    this.#last = id
  }

  // After a new connection: is the place in the stream still one from which nothing is missed?
  async #begin () {
    const [newest] = await this.#redis.xrevrange(this.stream, '+', '-', 'COUNT', 1)
    const end = newest?.[0] ?? '0-0'
    if (this.#last === null || after(this.#last, end)) { // at first; or Redis has lost entries
      this.#forgetAll()
      this.#last = end
    }
  }

  async #next () {
    const before = this.#last
    const reply = await this.#redis.xread('COUNT', BATCH, 'BLOCK', Math.ceil(this.staleMs / 3),
      'STREAMS', this.stream, before)
    const entries = reply?.[0][1] ?? []
    if (entries.length > 0) {
      const [oldest] = await this.#redis.xrange(this.stream, '-', '+', 'COUNT', 1)
      if (!oldest || after(oldest[0], before)) this.#forgetAll() // trimmed past it: some are missed
    }
    entries.forEach(entry => this.#apply(entry))
    if (entries.length < BATCH) this.#heardAt = performance.now() // else there are more
  }

  async #listen () {
    while (!this.#closed) {
      try {
        await this.#begin()
        while (!this.#closed) await this.#next()
      } catch {
        await new Promise(resolve => setTimeout(resolve, 20))
      }
    }
  }
}
