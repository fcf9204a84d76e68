// Cache-aside with a fenced fill: Node, pg and ioredis.
const { Pool } = require('pg')
const Redis = require('ioredis')

const db = new Pool({ connectionString: process.env.DATABASE_URL })
const redis = new Redis(process.env.REDIS_URL || 'redis://127.0.0.1:6379',
  { maxRetriesPerRequest: 1, commandTimeout: 200 })
redis.on('error', () => {}) // without Redis we read the database
const TTL_MS = 24 * 3600 * 1000

async function user (id) {
  const key = `user:${id}` // the rule: uncache.attach('users', 'user:{id}')
  const [hit, token] = await redis.fcall('uncache_get', 1, key)
    .catch(async () => [await redis.get(key).catch(() => null)])
  if (hit !== null) return JSON.parse(hit)

  const { rows: [{ value, snapshot }] } = await db.query(
    `SELECT uncache.snapshot($2) AS snapshot,
            (SELECT row_to_json(u) FROM users u WHERE id = $1) AS value`, [id, token ?? null])
  if (snapshot !== null) {
    await redis.fcall('uncache_set', 1, key, snapshot, TTL_MS, JSON.stringify(value)).catch(() => {})
  }
  return value
}

module.exports = { user, close: () => Promise.all([db.end(), redis.disconnect()]) }
