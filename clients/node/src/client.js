// client.js: what the package needs of a Redis client, the same for ioredis and node-redis.
//
// Every reply with bytes in it is a Buffer, so that values are what was stored. A command that
// takes several keys becomes one for each key in a Cluster, where their slots may be anywhere.
// get() and getAll() may be answered by a cache in the process, getFromRedis() never.

const BLOB_STRING = 36 // node-redis' RESP_TYPES.BLOB_STRING: '$', in RESP2 and RESP3
const SLOTS = 16384

// The error that a Redis has sent begins with a word in capitals; a client's own does not.
export const isReply = error => /^[A-Z][A-Z0-9]* /.test(error?.message ?? '')

// A token or a number that came as bytes.
export const textOf = bytes => bytes?.toString('latin1') ?? null

export function adapt (client) {
  if (typeof client?.getBuffer === 'function' && typeof client.call === 'function') {
    return new Ioredis(client)
  }
  if (typeof client?.withTypeMapping === 'function' && typeof client.fCall === 'function') {
    return new NodeRedis(client)
  }
  throw new TypeError('redis must be a client of ioredis (5 or later) or of redis (5 or later)')
}

class Ioredis {
  constructor (client) {
    this.client = client
    this.isCluster = client.isCluster === true
  }

  get (key) {
    return this.client.getBuffer(key)
  }

  getFromRedis (key) {
    return this.client.getBuffer(key)
  }

  getAll (keys) {
    return this.client.mgetBuffer(keys)
  }

  call (name, key, ...words) {
    return this.client.fcallBuffer(name, 1, key, ...words)
  }

  async callAll (name, calls) {
    const pipeline = this.client.pipeline()
    for (const words of calls) pipeline.fcallBuffer(name, 1, ...words)
    return (await pipeline.exec()).map(([error, reply]) => error ?? reply)
  }

  // A function without keys.
  tell (name, ...words) {
    return this.client.fcall(name, 0, ...words)
  }

  set (key, value, ttlMs) {
    return this.client.set(key, value, 'PX', ttlMs)
  }

  setForever (key, value) {
    return this.client.set(key, value)
  }

  unlink (key) {
    return this.client.unlink(key)
  }

  // The node that serves the key, as a name for it.
  place (key) {
    return this.isCluster ? (this.client.slots[slotOf(this.prefix + key)]?.[0] ?? '') : ''
  }

  get prefix () {
    const { keyPrefix, redisOptions } = this.client.options ?? {}
    return String(keyPrefix ?? redisOptions?.keyPrefix ?? '')
  }

  // ioredis adds its keyPrefix to keys of commands, not to patterns, and answers with whole names.
  async *scan(pattern) {
    const nodes = this.isCluster ? this.client.nodes('master') : [this.client]
    for (const node of nodes) {
      let cursor = '0'
      do {
        let names
        ;[cursor, names] = await node.scan(
          cursor,
          'MATCH',
          escapeGlob(this.prefix) + pattern,
          'COUNT',
          1000
        )
        yield names.map(name => name.slice(this.prefix.length))
      } while (cursor !== '0')
    }
  }
}

class NodeRedis {
  constructor (client) {
    this.plain = client
    this.client = client.withTypeMapping({ [BLOB_STRING]: Buffer })
    this.isCluster = Array.isArray(client.slots)
    this.prefix = ''
    // Its client-side cache serves a client as it was made, and none with another type mapping.
    this.hasNear = Boolean(client.clientSideCache)
  }

  get (key) {
    return this.hasNear ? this.#getNear(key) : this.client.get(key)
  }

  getFromRedis (key) {
    return this.client.get(key)
  }

  getAll (keys) {
    return this.hasNear ? Promise.all(keys.map(key => this.#getNear(key))) : this.client.mGet(keys)
  }

  // What came as text was bytes; where it was not UTF-8 it is asked for again.
  async #getNear (key) {
    const reply = await this.plain.get(key)
    if (typeof reply !== 'string') return reply
    return reply.includes('\ufffd') ? this.client.get(key) : Buffer.from(reply)
  }

  call (name, key, ...words) {
    return this.client.fCall(name, { keys: [key], arguments: words })
  }

  // Commands of one turn of the event loop leave in one pipeline.
  callAll (name, calls) {
    return Promise.all(
      calls.map(([key, ...words]) => this.call(name, key, ...words).catch(error => error))
    )
  }

  tell (name, ...words) {
    return this.client.fCall(name, { keys: [], arguments: words })
  }

  set (key, value, ttlMs) {
    return this.client.set(key, value, { PX: ttlMs })
  }

  setForever (key, value) {
    return this.client.set(key, value)
  }

  unlink (key) {
    return this.client.unlink(key)
  }

  place (key) {
    return this.isCluster ? (this.plain.slots[slotOf(key)]?.master?.address ?? '') : ''
  }

  async *scan(pattern) {
    const nodes = this.isCluster
      ? await Promise.all(this.plain.masters.map(master => this.plain.nodeClient(master)))
      : [this.plain]
    for (const node of nodes) {
      for await (const names of node.scanIterator({ MATCH: pattern, COUNT: 1000 })) yield names
    }
  }
}

export const escapeGlob = text => text.replace(/[\\*?[\]]/g, '\\$&')

// The slot of a key: CRC16 of it, or of its hash tag.
export function slotOf (key) {
  const open = key.indexOf('{')
  const close = open < 0 ? -1 : key.indexOf('}', open)
  let crc = 0
  for (const byte of Buffer.from(close > open + 1 ? key.slice(open + 1, close) : key)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff
  }
  return crc % SLOTS
}
