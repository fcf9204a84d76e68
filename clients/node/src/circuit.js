// circuit.js: commands to a Redis that may be away. A command that does not answer in time, or
// whose connection fails, opens the circuit of its node: until the node answers again no command
// goes there, so that an outage costs a process one bounded wait, and not one a request.
//
// A probe looks whether the node is back: one GET at a time, which no request waits for. While a
// node hangs the probe is what it answers first when it goes on.

import { isReply } from './client.js'

const BATCH = 1000 // keys of one MGET or pipeline, so that each answers within the time
const PROBE_MS = 100 // between probes that failed at once: a refused connection costs little
const PROBE_PATIENCE_MS = 2000 // a probe that a client holds back for longer is asked again

export class Away extends Error {
  constructor (cause) {
    super('Redis is away', { cause })
    this.name = 'Away'
  }
}

export class Circuit {
  #redis
  #timeoutMs
  #tell
  #open = new Map() // place -> timer of its probe, or true while a probe is under way
  #closed = false

  // tell(type, error) hears of 'down' and 'up'.
  constructor (redis, timeoutMs, tell) {
    this.#redis = redis
    this.#timeoutMs = timeoutMs
    this.#tell = tell
  }

  // Run a command of the key. Throws Away, or the error that Redis has replied.
  async run (key, command) {
    const place = this.#open.size > 0 || this.#redis.isCluster ? this.#redis.place(key) : ''
    if (this.#open.has(place)) throw new Away()
    try {
      return await within(this.#timeoutMs, command())
    } catch (error) {
      if (isReply(error)) throw error
      this.#fail(place, key, error)
      throw new Away(error)
    }
  }

  // The bytes of each key, null for none; or the error for it.
  getAll (keys) {
    return this.#inParts(keys, async part => {
      if (part.length > 1 && !this.#redis.isCluster) {
        return this.run(part[0], () => this.#redis.getAll(part)).catch(error =>
          part.map(() => error)
        )
      }
      return Promise.all(part.map(key => this.run(key, () => this.#redis.get(key)).catch(same)))
    })
  }

  // calls: [key, word...] of a function. The reply to each, or the error.
  callAll (name, calls) {
    return this.#inParts(calls, async part => {
      if (part.length > 1 && !this.#redis.isCluster) {
        return this.run(part[0][0], () => this.#redis.callAll(name, part)).catch(error =>
          part.map(() => error)
        )
      }
      return Promise.all(
        part.map(([key, ...words]) =>
          this.run(key, () => this.#redis.call(name, key, ...words)).catch(same)
        )
      )
    })
  }

  async #inParts (list, run) {
    const replies = []
    for (let i = 0; i < list.length; i += BATCH) {
      replies.push(...(await run(list.slice(i, i + BATCH))))
    }
    return replies
  }

  get isOpen () {
    return this.#open.size > 0
  }

  close () {
    this.#closed = true
    for (const timer of this.#open.values()) clearTimeout(timer)
  }

  #fail (place, key, error) {
    if (this.#open.has(place) || this.#closed) return
    this.#open.set(place, undefined)
    this.#tell('down', error)
    this.#probe(place, key)
  }

  // The key's node may have changed: then the old one is nobody's any more.
  async #probe (place, key) {
    try {
      await within(PROBE_PATIENCE_MS, this.#redis.getFromRedis(key))
    } catch (error) {
      if (!isReply(error)) {
        if (this.#closed) return
        this.#open.set(place, setTimeout(() => this.#probe(place, key), PROBE_MS).unref())
        return
      }
    }
    this.#open.delete(place)
    if (!this.#closed) this.#tell('up')
  }
}

const same = error => error

// Where this process was busy for longer than that, the answer may be here already, unread:
// it is read before the time counts as over.
function within (ms, promise) {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`no answer within ${ms} ms`))
    const timer = setTimeout(() => setImmediate(late), ms)
    promise.then(
      reply => {
        clearTimeout(timer)
        resolve(reply)
      },
      error => {
        clearTimeout(timer)
        reject(error)
      }
    )
  })
}
