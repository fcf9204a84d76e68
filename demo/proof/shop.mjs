// shop.mjs: a shop that keeps prices in a cache, by Keyv, over two stores: one that only sets, as
// every Redis store does, and the one of pg-uncache. Nothing else differs.
import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Redis } from 'ioredis'
import { Keyv } from 'keyv'
import { KeyvUncache, request } from 'pg-uncache/keyv'

const db = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 40 })
const redis = new Redis(process.env.REDIS_URL)

class PlainStore extends EventEmitter {
  opts = {}
  async get (key) {
    return (await redis.get(key)) ?? undefined
  }
  async set (key, text) {
    await redis.set(key, text, 'PX', DAY_MS)
  }
  async delete (key) {
    return (await redis.unlink(key)) > 0
  }
  async clear() {}
}

const DAY_MS = 24 * 3600 * 1000
const fenced = new KeyvUncache(redis, { ttlMs: DAY_MS, fenced: ['fenced:'] })
const caches = {
  plain: new Keyv({ store: new PlainStore(), namespace: 'plain' }),
  fenced: new Keyv({ store: fenced, namespace: 'fenced' })
}

// The application: it is the same for both.
async function priceOf (cache, id, slow = async () => {}) {
  let price = await cache.get(`product:${id}`)
  if (price === undefined) {
    const { rows } = await db.query('SELECT price FROM products WHERE id = $1', [id])
    await slow()
    price = rows[0].price
    await cache.set(`product:${id}`, price)
  }
  return price
}
// ... and so is the frame of each request; a web framework has a line for it.
const visit = (name, id, slow) => request(db, () => priceOf(caches[name], id, slow))
const change = (id, price) => db.query('UPDATE products SET price = $2 WHERE id = $1', [id, price])

let broken = false
const bold = text => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text)
const step = text => console.log(`\n${bold(text)}`)
const line = (what, plain, uncache) =>
  console.log(`  ${what.padEnd(46)} ${String(plain).padEnd(18)} ${uncache}`)
const claim = (it, what) => {
  if (it) return
  broken = true
  console.log(`  THIS DOES NOT HOLD: ${what}`)
}

async function oneLateReader () {
  step('1. One reader that is slower than a writer')
  line('', 'a plain cache', 'with pg-uncache')
  await db.query('INSERT INTO products SELECT i, 10 FROM generate_series(1, 20) i')
  const served = {}
  for (const name of ['plain', 'fenced']) {
    served[name] = visit(name, 1, () => sleep(300)) // it has read 10, and is busy now
  }
  await sleep(100)
  line('Ann opens the page; her request reads the price', 10, 10)
  await change(1, 20)
  line('Bob: UPDATE products SET price = 20; COMMIT', 'key deleted', 'key deleted')
  await Promise.all(Object.values(served))
  const kept = await redis.get('plain:product:1')
  line(
    "Ann's request stores what it has read",
    kept ? 'stored: 10' : 'not stored',
    fenced.counters.refused === 1 ? 'refused' : 'stored'
  )
  const reads = { plain: [], fenced: [] }
  for (let i = 0; i < 100; i++) {
    for (const name of ['plain', 'fenced']) reads[name].push(await visit(name, 1))
  }
  const wrong = name => reads[name].filter(price => price !== 20).length
  line(
    'The next 100 visitors see',
    `${reads.plain[99]}  (${wrong('plain')} wrong)`,
    `${reads.fenced[99]}  (${wrong('fenced')} wrong)`
  )
  line('... until', 'the TTL: 24 hours', '-')
  claim(wrong('plain') === 100, 'the plain cache should serve the old price')
  claim(wrong('fenced') === 0, 'the fenced one should serve the new price')
}

// Readers pause now and then between the database and the cache, as busy ones do.
async function aBusyShop (seconds) {
  step(`2. ${seconds} seconds of a busy shop: 40 readers, 2 writers, 20 products`)
  line('', 'a plain cache', 'with pg-uncache')
  const committed = new Map()
  const count = { plain: { reads: 0, stale: 0 }, fenced: { reads: 0, stale: 0 } }
  const end = Date.now() + seconds * 1000
  const any = () => 1 + Math.floor(Math.random() * 20)
  const slow = () => sleep(Math.random() < 0.8 ? 0 : Math.random() * 40)
  let price = 100
  const writer = async () => {
    while (Date.now() < end) {
      const id = any()
      const next = price++
      const { rows } = await db.query(
        'UPDATE products SET price = greatest(price, $2) WHERE id = $1 RETURNING price',
        [id, next]
      )
      committed.set(id, Math.max(committed.get(id) ?? 0, rows[0].price))
      await sleep(Math.random() * 30)
    }
  }
  const reader = async name => {
    while (Date.now() < end) {
      const id = any()
      const newest = committed.get(id) ?? 0
      const seen = await visit(name, id, slow)
      count[name].reads++
      if (seen < newest) count[name].stale++
      await sleep(Math.random() * 10)
    }
  }
  await Promise.all([
    writer(),
    writer(),
    ...['plain', 'fenced'].flatMap(name => Array.from({ length: 20 }, () => reader(name)))
  ])
  line('reads', count.plain.reads, count.fenced.reads)
  line('older than a commit that had returned', count.plain.stale, count.fenced.stale)
  const left = await wrongAtRest()
  line('products whose cached price is wrong for good', left.plain, left.fenced)
  line('fills that Redis has refused', '-', fenced.counters.refused)
  claim(count.plain.stale > 0, 'the plain cache should have served old prices')
  claim(count.fenced.stale === 0 && left.fenced === 0, 'the fenced one should have served none')
}

async function wrongAtRest () {
  const { rows } = await db.query('SELECT id, price FROM products, uncache.wait()')
  const left = {}
  for (const [name, cache] of Object.entries(caches)) {
    left[name] = 0
    for (const { id, price } of rows) {
      const cached = await cache.get(`product:${id}`)
      if (cached !== undefined && cached !== price) left[name]++
    }
  }
  return left
}

console.log("\nThe rule: uncache.attach('products', 'plain:product:{id}', 'fenced:product:{id}')")
console.log(
  'PostgreSQL deletes the key of either cache after each commit. The one line that differs:'
)
console.log('  new Keyv({ store: new PlainStore() })')
console.log("  new Keyv({ store: new KeyvUncache(redis, { fenced: ['fenced:'] }) })")
await oneLateReader()
await aBusyShop(10)
step(broken ? 'Not as it should be.' : 'With the drop-in store no reader was served an old price.')
await db.end()
redis.disconnect()
fenced.close()
process.exitCode = broken ? 1 : 0
