// drive.js: put the plain example through its paces. clients/node tests the fenced way.
const examples = '../../docs/examples'
const { Client, Pool } = require(`${examples}/node_modules/pg`)
const Redis = require(`${examples}/node_modules/ioredis`)

// Count the example's queries, and let something happen behind one of them,
// before the example goes on to store.
let queries = 0
let behind = null
const query = Pool.prototype.query
Pool.prototype.query = async function (...args) {
  queries++
  const result = await query.apply(this, args)
  const happen = behind
  behind = null
  if (happen) await happen()
  return result
}

const { user, redis: its, close } = require(`${examples}/plain.js`)
const writer = new Client({ connectionString: process.env.DATABASE_URL })
const redis = new Redis(process.env.DIRECT_URL)

const ok = (it, what) => console.log(`${it ? 'ok' : 'not ok'} - node, plain: ${what}`)
const cached = async id => JSON.parse(await redis.get(`user:${id}`) ?? '"nothing"')
const signal = name => process.kill(Number(process.env.PROXY_PID), name)
const ready = async () => {
  while (its.status !== 'ready') await new Promise(resolve => setTimeout(resolve, 10))
}

// How long requests take, in ms: of so many the fastest, since the machine may be busy.
async function requests (n) {
  let right = true
  const times = []
  for (let i = 0; i < n; i++) {
    const began = performance.now()
    right = (await user(1))?.name === 'first' && right
    times.push(performance.now() - began)
  }
  times.sort((a, b) => a - b)
  const text = [times[0], times[n >> 1], times[n - 1]].map(ms => `${ms.toFixed(1)} ms`).join(', ')
  return { right, fastest: times[0], text }
}

const rename = name => writer.query('UPDATE users SET name = $1 WHERE id = 1', [name])

async function main () {
  await writer.connect()
  await writer.query('TRUNCATE users')
  await writer.query("INSERT INTO users VALUES (1, 'first')")
  await writer.query('SELECT uncache.wait()')
  await ready()

  ok((await user(1)).name === 'first', 'a miss reads the database')
  ok((await cached(1)).name === 'first' && await redis.pttl('user:1') > 0, 'and fills, with a TTL')
  queries = 0
  ok((await user(1)).name === 'first' && queries === 0, 'a hit does not read it')

  await redis.set('user:1', '{"name": "fir')
  ok((await user(1)).name === 'first', 'a value that can\'t be decoded is a miss')
  ok((await cached(1)).name === 'first', 'and is replaced')

  signal('SIGSTOP')
  const hung = await requests(20)
  signal('SIGCONT')
  ok(hung.right && hung.fastest < 250,
    `while Redis hangs a request takes (fastest, median, slowest) ${hung.text}`)
  signal('SIGUSR1')
  while (its.status === 'ready') await new Promise(resolve => setTimeout(resolve, 10))
  const away = await requests(20)
  ok(away.right && away.fastest < 50, `while it is away ${away.text}`)
  signal('SIGUSR2')
  await ready()
  await redis.del('user:1')
  ok((await user(1)).name === 'first' && (await cached(1)).name === 'first',
    'when it is back it is used again')

  await rename('second')
  ok(await cached(1) === 'nothing', 'a write deletes the key')
  ok((await user(1)).name === 'second', 'the next reader has the new value')

  await rename('third')
  behind = () => rename('fourth')
  ok((await user(1)).name === 'third', 'a reader that is slower than a writer serves what it read')
  ok((await cached(1)).name === 'third', 'and stores it: the plain guarantee')
  await redis.del('user:1')
  ok((await user(1)).name === 'fourth' && (await cached(1)).name === 'fourth',
    'the next fill is the latest')

  ok(await user(99) === null && await cached(99) === null, 'that there is no row is cached, too')
  await writer.query("INSERT INTO users VALUES (99, 'new')")
  ok((await user(99)).name === 'new', 'until there is one')

  await Promise.all([close(), writer.end(), redis.disconnect()])
}

main().catch(error => { console.log(`not ok - ${error.stack}`); process.exit(1) })
