// shadow.js: now and then a hit is read from the database as well, and compared.
//
// That finds what the fence can't: a key that no rule covers, a reader that fills the key plainly.
// A value that differs may be right all the same: a commit came between, or the load ran on a
// standby that lags. It counts as stale only if the same value is still there when everything
// committed before is delivered, and Redis stores what was read instead: so it was new enough, and
// the stale value is gone.

import { textOf } from './client.js'

const REPORT_MS = 10_000 // between reports to the database's view, which nobody reads more often

export class Shadow {
  #parts
  #underWay = new Set()
  #checked = 0
  #stale = 0
  #timer = null
  #closed = false

  constructor (parts) {
    this.#parts = parts
  }

  isChosen (options) {
    return !options.noShadow && Math.random() < this.#parts.share
  }

  // Reads in the caller's turn, where its connection is; the rest goes on behind.
  async check (key, raw, read, ttlMs) {
    const { circuit, redis, encode, tell } = this.#parts
    try {
      const token = textOf(await circuit.run(key, () => redis.call('uncache_token', key)))
      if (token === null) return
      const { snapshot, value } = await read(token)
      if (snapshot === null) return
      const bytes = Buffer.from(encode(key, value))
      if (bytes.equals(raw)) return this.#count(key, false)
      this.#behind(this.#compare(key, raw, bytes, snapshot, ttlMs))
    } catch (error) {
      tell('error', { key, error })
    }
  }

  async idle () {
    await Promise.all(this.#underWay)
    await this.#report()
  }

  close () {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #behind (work) {
    const done = work
      .catch(error => this.#parts.tell('error', { error }))
      .finally(() => this.#underWay.delete(done))
    this.#underWay.add(done)
  }

  async #compare (key, raw, bytes, snapshot, ttlMs) {
    const { circuit, redis, wait, tell } = this.#parts
    if (!(await wait())) return
    const now = await circuit.run(key, () => redis.getFromRedis(key))
    if (now === null || !now.equals(raw)) return this.#count(key, false)
    const stored = await circuit.run(key, () =>
      redis.call('uncache_set', key, snapshot, String(ttlMs), bytes)
    )
    if (Number(stored) !== 1) return
    tell('stale', { key, cached: raw, loaded: bytes })
    this.#count(key, true)
  }

  #count (key, isStale) {
    this.#checked++
    if (isStale) this.#stale++
    this.#parts.tell('checked', { key, isStale })
    if (this.#closed) return
    this.#timer ??= setTimeout(() => this.#behind(this.#report()), REPORT_MS).unref()
  }

  async #report () {
    clearTimeout(this.#timer)
    this.#timer = null
    const [checked, stale] = [this.#checked, this.#stale]
    if (checked === 0) return
    this.#checked = this.#stale = 0
    try {
      await this.#parts.redis.tell('uncache_report', 'checked', `${checked}`, 'stale', `${stale}`)
    } catch (error) {
      this.#parts.tell('error', { error })
    }
  }
}
