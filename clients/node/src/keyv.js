// keyv.js: a store for Keyv, and so for what stands on it (cacheable, cache-manager).
//
// Keyv puts "namespace:" before each key, by itself ("keyv:" unless told); the store puts nothing
// before that. @keyv/redis puts its own "namespace::" before it, so that its names differ. Keyv 5
// sets the property namespace; Keyv 6 would take a store that has it for one that puts the
// namespace before the key itself.

import { EventEmitter } from 'node:events'
import { Store } from './store.js'

export { request } from './request.js'

export class KeyvUncache extends EventEmitter {
  #store

  /** redis: a client of ioredis or redis. options: see keyv.d.ts. */
  constructor (redis, options) {
    super()
    this.#store = new Store(redis, options)
    this.opts = { dialect: 'redis' } // Keyv 5 iterates stores whose dialect it knows
  }

  get counters () {
    return this.#store.counters
  }

  request (...words) {
    return this.#store.request(...words)
  }

  close () {
    this.#store.close()
  }

  get (key) {
    return this.#store.get(key)
  }

  getMany (keys) {
    return this.#store.getMany(keys)
  }

  set (key, text, ttlMs) {
    return this.#store.set(key, text, ttlMs)
  }

  setMany (entries) {
    return this.#store.setMany(
      entries.map(({ key, value, ttl }) => ({ key, text: value, ttlMs: ttl }))
    )
  }

  delete (key) {
    return this.#store.delete(key)
  }

  deleteMany (keys) {
    return this.#store.deleteMany(keys)
  }

  has (key) {
    return this.#store.has(key)
  }

  hasMany (keys) {
    return Promise.all(keys.map(key => this.#store.has(key)))
  }

  clear () {
    return this.#store.clear(this.namespace ? `${this.namespace}:` : '')
  }

  // [key, text] of each key of the namespace.
  iterator (namespace) {
    return this.#store.entries(namespace ? `${namespace}:` : '')
  }

  async disconnect () {
    this.#store.close()
  }
}
