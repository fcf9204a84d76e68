import type { EventEmitter } from 'node:events'
import type { Database } from './index.js'
import type { StoreCounters, StoreOptions } from './store.js'

export { request } from './index.js'

/** A store for Keyv, cacheable and cache-manager. */
export class KeyvUncache extends EventEmitter {
  constructor(redis: object, options: StoreOptions)
  readonly counters: StoreCounters
  request<T>(work: () => T): T
  request<T>(db: Database, work: () => T): T
  opts: any
  namespace?: string
  get(key: string): Promise<any>
  getMany(keys: string[]): Promise<any[]>
  set(key: string, text: any, ttlMs?: number): Promise<boolean>
  setMany(entries: { key: string; value: any; ttl?: number }[]): Promise<any>
  delete(key: string): Promise<boolean>
  deleteMany(keys: string[]): Promise<boolean>
  has(key: string): Promise<boolean>
  hasMany(keys: string[]): Promise<boolean[]>
  clear(): Promise<void>
  iterator(namespace?: string): AsyncGenerator<[string, string]>
  disconnect(): Promise<void>
  close(): void
}
