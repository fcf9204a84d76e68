// flights.js: of the readers in this process that miss the same key, one flies and one waits.
//
// A reader may only join a flight that has not begun to read: one that is under way may have read
// before a commit that the reader comes after. So the readers that come during a flight share the
// next one, which begins when the first has ended, and as a rule finds the value in the cache.
//
// A flight whose load asks for another key would wait for flights that may wait for it. Within a
// load nobody waits: see isInside().

import { AsyncLocalStorage } from 'node:async_hooks'

const inside = new AsyncLocalStorage()

export class Flights {
  #running = new Map() // key -> { flight, next }

  run (key, fly) {
    if (inside.getStore()) return fly()
    const running = this.#running.get(key)
    if (running === undefined) return this.#start(key, fly)
    running.next ??= running.flight
      .then(
        () => {},
        () => {}
      )
      .then(() => this.#start(key, fly))
    return running.next
  }

  #start (key, fly) {
    const entry = { flight: null, next: null }
    this.#running.set(key, entry)
    entry.flight = inside.run(true, fly).finally(() => {
      if (entry.next === null) this.#running.delete(key)
    })
    return entry.flight
  }
}
