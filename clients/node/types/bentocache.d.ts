import type { Database } from './index.js'
import type { StoreCounters, StoreOptions } from './store.js'

export { request } from './index.js'

/** An L2 driver, for bentostore().useL2Layer(). */
export function uncacheDriver(options: StoreOptions & { redis: object }): {
  options: Record<string, any>
  factory: (config: any) => any
  store: {
    readonly counters: StoreCounters
    request<T>(work: () => T): T
    request<T>(db: Database, work: () => T): T
  }
}
