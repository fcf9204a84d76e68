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

  // Take snapshots for misses, of [key, token] each. Of several misses of a key the first one
  // counts for the whole request: what others have read since then may be of any age.
  async remember (misses) {
    const room = MAX_MISSES - this.#misses.size
    const added = misses.filter(([key]) => !this.#misses.has(key)).slice(0, room)
    if (added.length === 0) return
    const { snapshots, began } = await this.db.snapshotsAndBegin(added.map(([, token]) => token))
    const isInBlock = await this.db.isInBlock(began)
    added.forEach(([key, token], i) => {
      if (snapshots[i] === null || this.#misses.has(key)) return
      this.#misses.set(key, { token, snapshot: snapshots[i], began: isInBlock ? began : null })
    })
  }

  missOf (key) {
    return this.#misses.get(key)
  }

  // What has become of the transaction of the misses: a value out of one that has written, or has
  // ended since, may be one that is rolled back.
  async state (misses) {
    const { snapshots, began } = await this.db.snapshotsAndBegin([misses[0].token])
    return {
      hasWritten: snapshots[0] === null,
      hasEnded: miss => miss.began !== null && miss.began !== began
    }
  }
}
