// package.js: what `npm pack` makes, installed into an empty folder, runs the README's code.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { assert, say, test } from './tap.js'
import { env } from './servers.js'
import { newTable } from './setup.js'

const here = new URL('..', import.meta.url).pathname
const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const block = /<!-- start -->\s*```js\n(.*?)```/s.exec(readme)[1]

const run = (folder, command, ...words) =>
  execFileSync(command, words, {
    cwd: folder,
    encoding: 'utf8',
    env: {
      ...env,
      HOME: env.WORK,
      DATABASE_URL:
        `postgresql:///${env.PGDATABASE}?host=${env.PGHOST}` +
        `&port=${env.PGPORT}&user=${env.PGUSER}`
    }
  })

test('package: from an empty folder, by the README alone, to a first fenced hit', async () => {
  await newTable('users', 1, 'user:{id}')
  const folder = `${env.WORK}/empty`
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const began = Date.now()
  run(folder, 'npm', 'pack', '--silent', here)
  const [archive] = readdirSync(folder)
  run(folder, 'npm', 'init', '-y', '--silent')
  run(
    folder,
    'npm',
    'install',
    '--silent',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    'pg',
    'ioredis',
    `./${archive}`
  )
  writeFileSync(`${folder}/start.mjs`, block)
  const output = run(folder, process.execPath, 'start.mjs')
  assert.match(output, /hit: 1,\s+miss: 1,\s+stored: 1/)
  assert.equal(output.match(/name: 'first'/g).length, 2)
  const seconds = Math.ceil((Date.now() - began) / 1000)
  say(`package: a first fenced hit after ${seconds} s`)
  assert.ok(seconds < 300)
})

test('package: it has no dependency, and every file that it exports', () => {
  const folder = `${env.WORK}/empty/node_modules/pg-uncache`
  const made = JSON.parse(readFileSync(`${folder}/package.json`))
  assert.equal(made.dependencies, undefined)
  for (const entry of Object.values(made.exports).filter(entry => entry.types)) {
    for (const file of Object.values(entry)) assert.ok(readFileSync(`${folder}/${file}`).length > 0)
  }
  for (const file of ['README.md', 'CHANGELOG.md']) assert.ok(readFileSync(`${folder}/${file}`))
  assert.throws(() => readFileSync(`${folder}/test/run`))
})
