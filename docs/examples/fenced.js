// Cache-aside with a fenced fill: Node, pg and ioredis.
const { Pool } = require('pg')
const Redis = require('ioredis')

const db = new Pool({ connectionString: process.env.DATABASE_URL })
const redis = new Redis(process.env.REDIS_URL || 'redis://127.0.0.1:6379', {
  commandTimeout: 100, // a Redis that hangs costs a request so many ms, once
  enableOfflineQueue: false // and one that is away costs nothing: no command waits for it
})
redis.on('error', () => {}) // without Redis we read the database
const TTL_MS = 24 * 3600 * 1000

// What is cached, or else a token for a fill.
async function look (key) {
  let hit = await redis.get(key)
  let token
  if (hit === null) [hit, token] = await redis.fcall('uncache_get', 1, key)
  if (hit !== null) {
    try { return { hit: JSON.parse(hit) } } catch {}
    token = await redis.fcall('uncache_token', 1, key) // can't be decoded: take its place
  }
  return { token }
}

async function user (id) {
  const key = `user:${id}` // the rule: uncache.attach('users', 'user:{id}')
  const { hit, token } = await look(key).catch(() => ({}))
  if (hit !== undefined) return hit

  const { rows: [{ value, snapshot }] } = await db.query(
    `SELECT uncache.snapshot($2) AS snapshot,
            (SELECT row_to_json(u) FROM users u WHERE id = $1) AS value`, [id, token ?? null])
  if (snapshot !== null) {
    await redis.fcall('uncache_set', 1, key, snapshot, TTL_MS, JSON.stringify(value))
      .catch(() => {})
  }
  return value
}

module.exports = { user, redis, close: () => Promise.all([db.end(), redis.disconnect()]) }
