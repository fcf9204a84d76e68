// hits.js: what a hit costs by the fenced example, beside the plain one, in one run.
const examples = '../../docs/examples'
const { Client } = require(`${examples}/node_modules/pg`)
const Redis = require(`${examples}/node_modules/ioredis`)
const lanes = { plain: require(`${examples}/plain.js`), fenced: require(`${examples}/fenced.js`) }
const redis = new Redis(process.env.REDIS_URL)
const ROUNDS = 20
const HITS = 500 // a round

const ok = (it, what) => console.log(`${it ? 'ok' : 'not ok'} - node, hits: ${what}`)
const calls = async () => Object.fromEntries(
  [...(await redis.info('commandstats')).matchAll(/cmdstat_(\w+):calls=(\d+)/g)]
    .map(m => [m[1], Number(m[2])]))

async function time (user) {
  const began = performance.now()
  for (let i = 0; i < HITS; i++) await user(1)
  return (performance.now() - began) * 1000 / HITS
}

async function main () {
  const db = new Client({ connectionString: process.env.DATABASE_URL })
  await db.connect()
  await db.query("TRUNCATE users; INSERT INTO users VALUES (1, 'first')")
  await db.query('SELECT uncache.wait()')
  for (const { redis: its } of Object.values(lanes)) {
    while (its.status !== 'ready') await new Promise(resolve => setTimeout(resolve, 10))
  }
  while (!await redis.exists('user:1')) await lanes.fenced.user(1)

  await redis.config('RESETSTAT')
  const times = { plain: [], fenced: [] }
  for (let i = 0; i < ROUNDS; i++) {
    for (const lane of Object.keys(lanes)) times[lane].push(await time(lanes[lane].user))
  }
  const { get, fcall } = await calls()
  ok(get === 2 * ROUNDS * HITS, 'each is one GET')
  // The worker calls a function a second, readers none.
  ok((fcall ?? 0) < HITS, 'and no function')
  const best = lane => Math.min(...times[lane])
  console.log(`# a hit: plain ${best('plain').toFixed(1)} us, ` +
    `fenced ${best('fenced').toFixed(1)} us, ` +
    `${(best('fenced') / best('plain')).toFixed(2)}x (the fastest of ${ROUNDS} rounds of ${HITS})`)
  const lanesClosed = Object.values(lanes).map(lane => lane.close())
  await Promise.all([...lanesClosed, db.end(), redis.disconnect()])
}

main().catch(error => { console.log(`not ok - ${error.stack}`); process.exit(1) })
