import type { CommonOptions, Counters, Database } from './index.js'

export interface StoreOptions extends CommonOptions {
  /** Where the reads go, for request(work); request(db, work) says it for one request. */
  db?: Database
  /** Prefixes of the keys, as they are in Redis, that rules cover. Others are stored plainly. */
  fenced: string[]
  /** For a serialisation that is not JSON: what a text in Redis is. */
  stateOf?(text: string): 'good' | 'old' | 'broken'
}

export interface StoreCounters extends Counters {
  /** Values under other prefixes. */
  plain: number
}
