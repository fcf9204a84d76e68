// request.js: the connection of the request that runs, and the misses that it remembers.
//
// A store sees a get and, later, a set of the same key, and nothing of what lies between. What it
// takes on the miss must reach the set of the same request, and no other: two requests may miss a
// key one after the other, and the snapshot of the later one proves nothing for the earlier one.

import { AsyncLocalStorage } from 'node:async_hooks'
import { Database, isPool } from './database.js'

const MAX_MISSES = 10_000 // of a request; more are served and not stored

const requests = new AsyncLocalStorage()

/**
 * Run work() as one request, whose reads go to db: a Pool or Client of pg, or a function
 * (text, parameters) that resolves to rows. Inside a transaction that is the transaction's client,
 * by a request() of its own. Returns what work returns. A request of one connection ends when that
 * promise settles, as the connection may be another request's then: what runs on in the background
 * stores nothing. With a Pool it may.
 */
export function request (db, work) {
  const request = new Request(new Database(db))
  const result = requests.run(request, work)
  if (!isPool(db) && typeof result?.then === 'function') {
    result.then(
      () => request.end(),
      () => request.end()
    )
  }
  return result
}

export function currentRequest () {
  const request = requests.getStore()
  return request?.hasEnded ? undefined : request
}

class Request {
  #misses = new Map() // key -> {token, snapshot, began}; began null outside of a transaction block

  constructor (db) {
    this.db = db
    this.hasEnded = false
  }

  end () {
    this.hasEnded = true
    this.#misses.clear()
  }

  // Take a snapshot for the miss. Of several misses of a key the first one counts, as the readers
  // between may be of any age; one whose transaction has ended is forgotten.
  async remember (key, token) {
    if (this.#misses.size >= MAX_MISSES && !this.#misses.has(key)) return
    const { snapshot, began } = await this.db.snapshotAndBegin(token)
    if (snapshot === null) return
    const earlier = this.#misses.get(key)
    if (earlier?.began === began || earlier?.began === null) return
    const isInBlock = await this.db.isInBlock(began)
    this.#misses.set(key, { token, snapshot, began: isInBlock ? began : null })
  }

  missOf (key) {
    return this.#misses.get(key)
  }

  // What has become of the transaction of the miss: a value out of one that has written, or has
  // ended since, may be one that is rolled back.
  async stateOf (miss) {
    const { snapshot, began } = await this.db.snapshotAndBegin(miss.token)
    return {
      hasWritten: snapshot === null,
      hasEnded: miss.began !== null && miss.began !== began
    }
  }
}
