// Cache-aside without a fence: Node, pg and ioredis.
const { Pool } = require('pg')
const Redis = require('ioredis')

const db = new Pool({ connectionString: process.env.DATABASE_URL })
const redis = new Redis(process.env.REDIS_URL || 'redis://127.0.0.1:6379',
  { maxRetriesPerRequest: 1, commandTimeout: 200 })
redis.on('error', () => {}) // without Redis we read the database
const TTL_S = 600

async function user (id) {
  const key = `user:${id}` // the rule: uncache.attach('users', 'user:{id}')
  const hit = await redis.get(key).catch(() => null)
  if (hit !== null) return JSON.parse(hit)

  const { rows } = await db.query('SELECT * FROM users WHERE id = $1', [id])
  const value = rows[0] ?? null // no row is an answer too
  await redis.set(key, JSON.stringify(value), 'EX', TTL_S).catch(() => {})
  return value
}

module.exports = { user, close: () => Promise.all([db.end(), redis.disconnect()]) }
