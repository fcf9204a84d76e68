// bentocache.js: an L2 driver for bentocache, which spells keys as its own Redis driver does:
// "prefix:namespace:key", by default "bentocache:key".
//
// bentocache keeps the moments at which tags were invalidated under keys of the same cache. They
// are stored plainly, as no row is behind them, and must never be deleted: that would revive what
// an invalidation of the tag has put to rest.

import { Store } from './store.js'

export { request } from './request.js'

const TAGS = '___bc:t:'

/** options: see bentocache.d.ts. For bentostore().useL2Layer(). */
export function uncacheDriver (options) {
  const { redis, ...ours } = options
  const store = new BentoStore(redis, { ...ours, stateOf: ours.stateOf ?? stateOf })
  return { options: {}, factory: config => new UncacheDriver(store, config?.prefix), store }
}

class BentoStore extends Store {
  isFenced (key) {
    return super.isFenced(key) && !key.includes(TAGS)
  }
}

class UncacheDriver {
  type = 'l2'
  #store
  #prefix

  constructor (store, prefix = '') {
    this.#store = store
    this.#prefix = prefix.replace(/:+$/, '')
  }

  namespace (name) {
    return new UncacheDriver(this.#store, this.#prefix ? `${this.#prefix}:${name}` : name)
  }

  get (key) {
    return this.#store.get(this.#name(key))
  }

  async pull (key) {
    const text = await this.get(key)
    if (text !== undefined) await this.delete(key)
    return text
  }

  // expire() gets an entry and sets it again as an old one: no miss is behind that.
  async set (key, text, ttlMs) {
    const name = this.#name(key)
    if (this.#store.isFenced(name) && stateOf(text) === 'old') {
      await this.#store.delete(name)
      return true
    }
    return this.#store.set(name, text, ttlMs)
  }

  has (key) {
    return this.#store.has(this.#name(key))
  }

  clear () {
    return this.#store.clear(this.#prefix ? `${this.#prefix}:` : '')
  }

  delete (key) {
    return this.#store.delete(this.#name(key))
  }

  deleteMany (keys) {
    return this.#store.deleteMany(keys.map(key => this.#name(key)))
  }

  async disconnect () {
    this.#store.close()
  }

  #name (key) {
    return this.#prefix ? `${this.#prefix}:${key}` : key
  }
}

// An entry whose grace period has begun is served while another one is made.
function stateOf (text) {
  try {
    const { logicalExpiration } = JSON.parse(text)
    return logicalExpiration !== undefined && logicalExpiration <= Date.now() ? 'old' : 'good'
  } catch {
    return 'broken'
  }
}
