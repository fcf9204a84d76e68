/** A Pool or Client of pg, or a function that runs a statement and resolves to its rows. */
export type Database =
  | { query(text: string, parameters?: any[]): Promise<{ rows: any[] }> }
  | ((text: string, parameters: any[]) => Promise<any[] | { rows: any[] }>)

type Awaitable<T> = T | Promise<T>

export interface Counters {
  hit: number
  miss: number
  /** Fills that Redis has stored. */
  stored: number
  /** Fills that Redis has refused: the reader can't prove that its value is new enough. */
  refused: number
  /** Misses whose value was served and could not be stored: no Redis, no token, no snapshot. */
  unfenced: number
  /** Misses that waited for another reader's lease. */
  waited: number
}

/**
 * type: the name of a counter; or down, up (of Redis), error, warning, checked, stale (see shadow).
 */
export interface FenceEvent {
  type: keyof Counters | 'down' | 'up' | 'error' | 'warning' | 'checked' | 'stale'
  key?: string | null
  /** Of unfenced and warning: why, in words. */
  reason?: string
  /** Of warning. */
  message?: string
  error?: Error
  /** Of checked. */
  isStale?: boolean
  /** Of stale: what was cached, and what the database has. */
  cached?: Uint8Array
  loaded?: Uint8Array
}

export interface CommonOptions {
  /** How long a value is kept in Redis, in milliseconds. */
  ttlMs: number
  /** How long a request waits for a Redis that does not answer, once; 50 unless told. */
  redisTimeoutMs?: number
  onEvent?(event: FenceEvent): void
}

export interface FenceOptions extends CommonOptions {
  /** Where loads read. It may be left out if snapshot is given. */
  db?: Database
  /**
   * SELECT uncache.snapshot(token), on the connection of the load or, outside of transactions, on
   * any connection to the same server; before the load reads.
   */
  snapshot?(token: string): Awaitable<string | null>
  /** The same of many tokens, in their order: SELECT uncache.snapshot($1::text[]). */
  snapshots?(tokens: string[]): Awaitable<(string | null)[]>
  /** SELECT uncache.wait(), on the primary; for shadow. */
  wait?(): Awaitable<boolean>
  /** For transaction(), where db is no Pool: runs work in a transaction of its own. */
  begin?<T>(work: (tx: Database) => Promise<T>): Promise<T>
  /**
   * Of the readers of a key, in all processes, only one asks the database; the others wait for its
   * value, at most so many milliseconds (up to 60,000) from when it began. None unless told.
   */
  leaseMs?: number
  /** The share of hits that are read from the database as well and compared; 0 unless told. */
  shadow?: number
  /** JSON unless told. encode gives text or bytes; decode throws for what it can't read. */
  encode?(value: any): string | Uint8Array
  decode?(bytes: Buffer): any
}

export interface CallOptions {
  ttlMs?: number
  /** The connection that the load of this call uses, as within a transaction. */
  db?: Database
  snapshot?(token: string): Awaitable<string | null>
  snapshots?(tokens: string[]): Awaitable<(string | null)[]>
}

export class Fence {
  /** redis: a client of ioredis 5 or later, or of redis 5 or later; also of a Cluster. */
  constructor(redis: object, options: FenceOptions)

  /** The value of the key, from the cache or by load. key null: load(), and nothing is cached. */
  fetch<T>(key: string | null, load: () => Awaitable<T>, options?: CallOptions): Promise<T>

  /** The rows of a SELECT, as JSON has them; one statement reads them and the snapshot. */
  fetchSql<T = any>(
    key: string,
    sql: string,
    parameters?: any[],
    options?: CallOptions
  ): Promise<T[]>

  /** load runs in a transaction that may not write; for loads of several queries. */
  transaction<T>(key: string, load: (tx: any) => Awaitable<T>, options?: CallOptions): Promise<T>

  /** loadMany gets the missing keys; null stands for a key without a row. */
  fetchMany<T>(
    keys: Iterable<string>,
    loadMany: (missing: string[]) => Awaitable<Map<string, T> | Record<string, T> | T[]>,
    options?: CallOptions
  ): Promise<Map<string, T>>

  /** work gets a function that makes the key of a page by the nonces of the tags. */
  tags<T>(
    tags: string[],
    work: (keyOf: (page: string) => string | null) => Awaitable<T>,
    options?: CallOptions
  ): Promise<T>

  readonly counters: Counters
  /** Redis does not answer; the package looks for it in the background. */
  readonly isAway: boolean
  /** Resolves when no shadow check is under way, and their outcome is reported. */
  idle(): Promise<void>
  /** Stops what runs in the background; the client and the database stay open. */
  close(): void
}

/** Run work as one request, whose reads go to db. Stores remember the misses of a request. */
export function request<T>(db: Database, work: () => T): T
