// counts.js: what has come of the readers of a Fence or a store, and who is told.
//
// "unfenced" is a miss whose value was served and could not be stored: no token, no snapshot, no
// Redis. Now and then that is as it should be. Where it goes on for a minute, and no fill was
// stored or refused meanwhile, the cache is of no use: one warning says so, and why.

import { Away } from './circuit.js'

const PATIENCE_MS = 60_000

export class Counts {
  hit = 0
  miss = 0
  stored = 0
  refused = 0
  unfenced = 0
  waited = 0
  #onEvent
  #since = null // when the first of a row of unfenced fills was; ms, monotonic
  #warned = false

  constructor (onEvent) {
    this.#onEvent = onEvent
  }

  // type is the name of a counter; details go to onEvent.
  count (type, key, details) {
    this[type]++
    if (type === 'stored' || type === 'refused') {
      this.#since = null
      this.#warned = false
    }
    if (this.#onEvent) this.tell(type, { key, ...details })
    if (type === 'unfenced') this.#watch(details.reason)
  }

  tell (type, details) {
    if (!this.#onEvent) return
    try {
      this.#onEvent({ type, ...details })
    } catch (error) {
      process.emitWarning(error)
    }
  }

  // Why a command was of no use; onEvent hears of what is more than an outage.
  reasonOf (key, error) {
    if (error instanceof Away) return REASONS.away
    this.tell('error', { key, error })
    return /function not found/i.test(error.message) ? REASONS.noFunctions : error.message
  }

  get counters () {
    const { hit, miss, stored, refused, unfenced, waited } = this
    return { hit, miss, stored, refused, unfenced, waited }
  }

  #watch (reason) {
    const now = performance.now()
    this.#since ??= now
    if (this.#warned || now - this.#since < PATIENCE_MS) return
    this.#warned = true
    const message =
      `pg-uncache: for ${Math.round((now - this.#since) / 1000)} s no fill could be ` +
      `fenced, and nothing was cached: ${reason}`
    process.emitWarning(message, { code: 'UNCACHE_UNFENCED' })
    this.tell('warning', { message, reason })
  }
}

// Why a fill can't be fenced, in words that name the way out.
export const REASONS = {
  away: 'Redis is away',
  noFunctions:
    'Redis does not have the functions: is uncache.fence_ttl above 0, and does the ' +
    'worker reach this Redis? SELECT state, fence, last_error FROM uncache.stat',
  noToken:
    'Redis gives no token: no worker has set it up yet (SELECT fence, last_error FROM ' +
    'uncache.stat), or the key has a "}" that leaves no room for its record',
  noSnapshot:
    'uncache.snapshot() is NULL: the transaction has written, uncache.fence_ttl is 0 ' +
    'on the server that was asked, or its worker has just started',
  noExtension: 'uncache.snapshot() can not be called: is the extension in this database?',
  lease: 'another reader has the lease and did not fill in time',
  noRequest: 'no request() is under way, so there is no connection to take a snapshot on',
  noMiss: 'this request has not missed the key before: nothing says what the value has seen',
  hasEnded: 'the transaction of the miss has ended, so the value may be rolled back',
  expired: 'the time to live is over'
}
