// Cache-aside without a fence: Node, pg and ioredis.
const { Pool } = require('pg')
const Redis = require('ioredis')

const db = new Pool({ connectionString: process.env.DATABASE_URL })
const redis = new Redis(process.env.REDIS_URL || 'redis://127.0.0.1:6379', {
  commandTimeout: 100, // a Redis that hangs costs a request so many ms, once
  enableOfflineQueue: false // and one that is away costs nothing: no command waits for it
})
redis.on('error', () => {}) // without Redis we read the database
const TTL_S = 600

async function user (id) {
  const key = `user:${id}` // the rule: uncache.attach('users', 'user:{id}')
  const hit = await redis.get(key).catch(() => undefined)
  try {
    if (hit) return JSON.parse(hit)
  } catch {} // can't be decoded: a miss

  const { rows } = await db.query('SELECT * FROM users WHERE id = $1', [id])
  const value = rows[0] ?? null // no row is an answer too
  if (hit !== undefined) await redis.set(key, JSON.stringify(value), 'EX', TTL_S).catch(() => {})
  return value
}

module.exports = { user, redis, close: () => Promise.all([db.end(), redis.disconnect()]) }
