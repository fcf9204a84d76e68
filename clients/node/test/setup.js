// setup.js: the table that tests read through caches, and counts of what was asked.
import { pool } from './servers.js'

export const db = pool({ max: 60 })

// A table with rows 1 to n, of the keys that its templates name.
export async function newTable (name, n, ...templates) {
  await db.query(
    `DROP TABLE IF EXISTS ${name}; CREATE TABLE ${name} (id int PRIMARY KEY, name text)`
  )
  await db.query(`SELECT uncache.attach($1, VARIADIC $2)`, [name, templates])
  await db.query(`INSERT INTO ${name} SELECT i, 'first' FROM generate_series(1, ${n}) i`)
  await db.query('SELECT uncache.invalidate_table($1)', [name])
  await db.query('SELECT uncache.wait()')
}

// How often the Redis has run a command since the last call for it.
export async function callsOf (redis, command) {
  const info = await (redis.call
    ? redis.call('INFO', 'commandstats')
    : redis.sendCommand(['INFO', 'commandstats']))
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(info)?.[1] ?? 0)
}

// A pool that counts, and holds, its statements.
export function watched (pool) {
  const seen = []
  return {
    seen,
    totalCount: 0,
    connect: () => pool.connect(),
    query: (text, parameters) => {
      seen.push(text)
      return pool.query(text, parameters)
    }
  }
}

export const nameOf = (on, table) => async id =>
  (await on.query(`SELECT name FROM ${table} WHERE id = $1`, [id])).rows[0]?.name ?? null

// A connection of its own, whose transaction is rolled back however the test ends.
export async function session (run) {
  const client = await db.connect()
  try {
    return await run(client)
  } finally {
    await client.query('ROLLBACK')
    client.release()
  }
}
