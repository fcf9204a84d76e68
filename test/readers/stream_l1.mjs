// stream_l1.mjs: the L1 cache of docs/examples against real commits, and against a link that
// breaks, a stream that was trimmed, and a Redis that hangs.
import { createRequire } from 'node:module'
import { L1 } from '../../docs/examples/l1.mjs'

const require = createRequire(new URL('../../docs/examples/', import.meta.url))
const { Client } = require('pg')
const Redis = require('ioredis')

const STREAM = 'uncache:deleted'
const redis = new Redis(process.env.DIRECT_URL)
const db = new Client({ connectionString: process.env.DATABASE_URL })
const l1 = new L1(process.env.REDIS_URL, { staleMs: 1000 })

const ok = (it, what) => console.log(`${it ? 'ok' : 'not ok'} - L1: ${what}`)
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
async function comesTrue (is, what) {
  const until = performance.now() + 20000
  while (performance.now() < until) {
    if (await is()) return ok(true, what)
    await pause(10)
  }
  ok(false, what)
}

let loads = 0
const load = async key => {
  loads++
  const { rows } = await db.query('SELECT name FROM users WHERE id = $1', [key.split(':')[1]])
  return rows[0]?.name
}
const get = id => l1.get(`user:${id}`, load)
const rename = (id, name) =>
  db.query('UPDATE users SET name = $2 WHERE id = $1', [id, name])
async function isKept (id) { // that is, a get does not load
  const before = loads
  await get(id)
  return loads === before
}
const killReaders = async () => {
  const clients = (await redis.client('LIST')).split('\n').filter(line => /cmd=xread/.test(line))
  for (const line of clients) await redis.client('KILL', 'ID', line.match(/^id=(\d+)/)[1])
  return clients.length
}
const signal = name => process.kill(Number(process.env.PROXY_PID), name)

await db.connect()
await db.query('TRUNCATE users')
await db.query("INSERT INTO users SELECT i, 'first' FROM generate_series(1, 9) i")
await db.query('SELECT uncache.wait()')

await comesTrue(() => isKept(1), 'a value is kept')
await rename(1, 'second')
await comesTrue(async () => await get(1) === 'second', 'a commit removes it')
await comesTrue(() => isKept(1), 'and the new one is kept')

// A read that began before the commit and ends after its entry.
let goOn
const began = new Promise(resolve => { goOn = resolve })
const slow = l1.get('user:2', async key => {
  const value = await load(key)
  await began
  return value
})
await pause(50)
await get(3)
await comesTrue(() => isKept(3), 'another key is kept')
await rename(2, 'second')
await rename(3, 'second')
await comesTrue(async () => await get(3) === 'second', 'both entries have come')
goOn()
ok(await slow === 'first', 'a read that was under way gets the old value')
ok(await get(2) === 'second', 'which is not kept')

// A pattern.
await comesTrue(async () => (await isKept(1)) && (await isKept(2)), 'two keys are kept')
await db.query("SELECT uncache.invalidate_pattern('user:*')")
await comesTrue(async () => l1.size === 0, 'a pattern removes what it matches')

// The link breaks: it goes on from its last id.
await comesTrue(() => isKept(4), 'a value is kept')
signal('SIGSTOP') // the proxy passes nothing on
await rename(4, 'second')
await db.query('SELECT uncache.wait()')
signal('SIGCONT')
ok(await killReaders() >= 0, 'connections are killed')
await comesTrue(async () => await get(4) === 'second', 'it hears afterwards what it has missed')

// Redis hangs: what may be old is not given.
await comesTrue(() => isKept(5), 'a value is kept')
signal('SIGSTOP')
await rename(5, 'second')
await comesTrue(async () => await get(5) === 'second', 'while nothing is heard nothing is given')
signal('SIGCONT')
await comesTrue(() => isKept(5), 'and kept again afterwards')

// The stream was trimmed past its last id.
await comesTrue(async () => (await isKept(6)) && (await isKept(7)), 'two keys are kept')
signal('SIGSTOP')
await killReaders()
await rename(6, 'second')
await db.query('SELECT uncache.wait()')
await redis.xtrim(STREAM, 'MAXLEN', 0)
await rename(8, 'second')
await db.query('SELECT uncache.wait()')
loads = 0
signal('SIGCONT')
await comesTrue(async () => await get(6) === 'second', 'what was trimmed is not given for ever')
ok(await get(7) === 'first' && loads >= 2, 'all was forgotten')

// A stream that is gone, with Redis, and begins again.
await comesTrue(() => isKept(9), 'a value is kept')
await redis.del(STREAM)
await killReaders()
await rename(9, 'second')
await comesTrue(async () => await get(9) === 'second', 'a stream that begins again is followed')

await l1.close()
redis.disconnect()
await db.end()
