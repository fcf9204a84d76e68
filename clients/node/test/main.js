// main.js [FILE]...: run the tests of these files, or of all.
import { runAll } from './tap.js'
import { closeAll } from './servers.js'

const files =
  process.argv.length > 2
    ? process.argv.slice(2)
    : [
        'unit',
        'conformance',
        'fence',
        'outage',
        'cluster',
        'keyv',
        'bentocache',
        'names',
        'clientside',
        'race',
        'package'
      ]
for (const file of files) await import(`./${file}.js`)
const failed = await runAll()
await closeAll()
process.exit(failed === 0 ? 0 : 1)
