// servers.js: connections to what the tests find in their environment.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

export const { env } = process
const require = createRequire(`${env.WORK}/package.json`)
export const library = name => require(name)
const pg = library('pg')
const redisPort = Number(env.REDIS_PORT)
const clusterPort = Number(env.REDIS_CLUSTER_PORT)
const open = []

// options: those of pg; database of the client unless told.
export function pool (options) {
  const made = new pg.Pool({
    host: env.PGHOST,
    port: Number(env.PGPORT),
    user: env.PGUSER,
    database: env.PGDATABASE,
    statement_timeout: 60_000,
    ...options
  })
  made.on('error', () => {})
  open.push(() => made.end())
  return made
}

export const onStandby = () => pool({ port: Number(env.STANDBY_PORT) })
export const onPgbouncer = () =>
  pool({ port: Number(env.PGBOUNCER_PORT), statement_timeout: undefined })
export const onClusterDatabase = () => pool({ database: `${env.PGDATABASE}_cluster` })

async function ioredis (name, options) {
  const { Redis } = library(name)
  const client = new Redis({
    host: env.REDIS_HOST,
    port: redisPort,
    db: Number(env.REDIS_DB),
    ...options
  })
  client.on('error', () => {})
  if (client.status !== 'ready') await new Promise(resolve => client.once('ready', resolve))
  return { client, end: () => client.disconnect() }
}

async function nodeRedis (name, options) {
  const client = library(name).createClient({ url: env.REDIS_URL, ...options })
  client.on('error', () => {})
  await client.connect()
  return { client, end: () => client.destroy() }
}

async function ioredisCluster (name) {
  const { Cluster } = library(name)
  const client = new Cluster([{ host: '127.0.0.1', port: clusterPort }])
  client.on('error', () => {})
  if (client.status !== 'ready') await new Promise(resolve => client.once('ready', resolve))
  return { client, end: () => client.disconnect() }
}

async function nodeRedisCluster (name) {
  const client = library(name).createCluster({
    rootNodes: [{ url: `redis://127.0.0.1:${clusterPort}` }]
  })
  client.on('error', () => {})
  await client.connect()
  return { client, end: () => client.destroy() }
}

// Each library in each version; connect(options) gives {client, end}.
export const libraries = Object.fromEntries(
  ['ioredis6', 'ioredis5', 'ioredis50']
    .map(name => [name, options => ioredis(name, options)])
    .concat(
      ['redis6', 'redis5', 'redis50'].map(name => [name, options => nodeRedis(name, options)])
    )
)

export const clusterLibraries = Object.fromEntries(
  ['ioredis6', 'ioredis5']
    .map(name => [name, () => ioredisCluster(name)])
    .concat(['redis6', 'redis5'].map(name => [name, () => nodeRedisCluster(name)]))
)

export const versionOf = name =>
  JSON.parse(readFileSync(`${env.WORK}/node_modules/${name}/package.json`)).version

// Until it holds; a failure says what did not come.
export async function until (what, holds, seconds = 20) {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const value = await holds()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await sleep(20)
  }
}

export const signal = name => process.kill(Number(env.REDIS_PID), `SIG${name}`)

export async function closeAll () {
  await Promise.all(open.map(close => close()))
}

export { sleep }
