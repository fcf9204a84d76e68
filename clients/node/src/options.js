// options.js: what a Fence and a store can be told, checked where it is given.

const COMMON = ['db', 'ttlMs', 'redisTimeoutMs', 'onEvent']
const KNOWN = {
  Fence: [
    ...COMMON,
    'snapshot',
    'snapshots',
    'wait',
    'begin',
    'leaseMs',
    'shadow',
    'encode',
    'decode'
  ],
  store: [...COMMON, 'fenced', 'stateOf']
}
const MEANT = { ttl: 'ttlMs', ttlSeconds: 'ttlMs', lease: 'leaseMs', timeout: 'redisTimeoutMs' }

export function checkOptions (kind, options) {
  if (options === null || typeof options !== 'object') throw new TypeError('options are missing')
  for (const name of Object.keys(options)) {
    if (KNOWN[kind].includes(name)) continue
    const hint = MEANT[name] ? `; did you mean ${MEANT[name]}?` : ''
    throw new TypeError(`there is no option "${name}"${hint}`)
  }
  checkMs('ttlMs', options.ttlMs, Number.MAX_SAFE_INTEGER)
  checkMs('redisTimeoutMs', options.redisTimeoutMs ?? 50, 60_000)
  if (options.leaseMs !== undefined) checkMs('leaseMs', options.leaseMs, 60_000)
  for (const name of [
    'snapshot',
    'snapshots',
    'wait',
    'begin',
    'encode',
    'decode',
    'onEvent',
    'stateOf'
  ]) {
    if (options[name] !== undefined && typeof options[name] !== 'function') {
      throw new TypeError(`${name} must be a function`)
    }
  }
  if (options.encode === undefined ? options.decode : !options.decode) {
    throw new TypeError('encode and decode belong together')
  }
  const { shadow = 0 } = options
  if (!(typeof shadow === 'number' && shadow >= 0 && shadow <= 1)) {
    throw new RangeError('shadow must be a share from 0 to 1')
  }
}

export function checkMs (name, value, most) {
  if (Number.isSafeInteger(value) && value >= 1 && value <= most) return value
  throw new RangeError(
    `${name} must be a positive whole number of milliseconds` +
      (most === Number.MAX_SAFE_INTEGER ? '' : ` up to ${most}`) +
      `, got ${String(value)}`
  )
}

export function checkKey (key) {
  if (typeof key === 'string' && key !== '') return key
  throw new TypeError(`a key must be text that is not empty, got ${String(key)}`)
}
