// tap.js: tests one after the other, as TAP.
import assert from 'node:assert/strict'

const tests = []
export { assert }

export const test = (name, run) => tests.push({ name, run })
export const skip = (name, why) => tests.push({ name, why })

const PATIENCE_MS = 180_000 // a test that hangs must not take the others with it

const tooLong = () =>
  new Promise((_, reject) =>
    setTimeout(() => reject(new Error('it does not end')), PATIENCE_MS).unref()
  )

// say() is for figures that a reader of the output wants.
export const say = text => console.log(`# ${text}`)

export async function runAll () {
  let number = 0
  let failed = 0
  for (const { name, run, why } of tests) {
    number++
    try {
      if (run) await Promise.race([run(), tooLong()])
      console.log(`ok ${number} - ${name}${why ? ` # SKIP ${why}` : ''}`)
    } catch (error) {
      failed++
      console.log(`not ok ${number} - ${name}`)
      console.log(`${error.stack ?? error}`.replace(/^/gm, '# '))
    }
  }
  console.log(`1..${number}`)
  return failed
}
