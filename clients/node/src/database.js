// database.js: what the package asks PostgreSQL, by whatever way the application has.

const MISSING = ['3F000', '42883', '42501'] // no schema uncache, no such function, no right to it

// db: a Pool or Client of pg, or a function (text, parameters) that resolves to rows, or to an
// object with rows. begin, for databases other than a Pool: begin(work) runs work(query) in a
// transaction of its own, where query is such a function.
export class Database {
  constructor (db, begin) {
    this.db = checkDatabase(db)
    this.begin = begin
  }

  query (text, parameters) {
    return rowsOf(this.db, text, parameters)
  }

  async snapshot (token) {
    const [row] = await this.query('SELECT uncache.snapshot($1::text) AS snapshot', [token])
    return row.snapshot
  }

  async snapshots (tokens) {
    const [row] = await this.query('SELECT uncache.snapshot($1::text[]) AS snapshots', [tokens])
    return row.snapshots
  }

  // The snapshots, and when the transaction that took them began.
  async snapshotsAndBegin (tokens) {
    const [row] = await this.query(
      'SELECT uncache.snapshot($1::text[]) AS snapshots, extract(epoch FROM now())::text AS began',
      [tokens]
    )
    return row
  }

  // Whether that transaction goes on: outside of a block it has ended with its statement.
  async isInBlock (began) {
    if (typeof this.db.getTransactionStatus === 'function') {
      return this.db.getTransactionStatus() !== 'I'
    }
    if (isPool(this.db)) return false
    const [row] = await this.query('SELECT extract(epoch FROM now())::text AS began', [])
    return row.began === began
  }

  async wait () {
    const [row] = await this.query('SELECT uncache.wait() AS delivered', [])
    return row.delivered
  }

  // One statement reads the rows, as JSON, and the snapshot.
  async readWithSnapshot (sql, parameters, token) {
    const rows = `(SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM (\n${sql.replace(
      /[;\s]+$/,
      ''
    )}\n) q)::text AS rows`
    try {
      const [row] = await this.query(
        `SELECT uncache.snapshot($${parameters.length + 1}::text) AS snapshot, ${rows}`,
        [...parameters, token]
      )
      return row
    } catch (error) {
      if (!isMissing(error)) throw error
      const [row] = await this.query(`SELECT ${rows}`, parameters)
      return { snapshot: null, rows: row.rows, error }
    }
  }

  // A transaction that may not write; work(tx, query) runs in it.
  async readOnly (work) {
    if (this.begin) {
      return this.begin(async tx => {
        const query = (text, parameters) => rowsOf(tx, text, parameters)
        await query('SET TRANSACTION READ ONLY', [])
        return work(tx, query)
      })
    }
    if (!isPool(this.db)) {
      throw new TypeError('transaction() needs a Pool of pg as db, or the option begin')
    }
    const client = await this.db.connect()
    let broken = false
    try {
      await client.query('BEGIN READ ONLY')
      const value = await work(client, (text, parameters) => rowsOf(client, text, parameters))
      await client.query('COMMIT')
      return value
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {
        broken = true
      })
      throw error
    } finally {
      client.release(broken)
    }
  }
}

export const isMissing = error =>
  MISSING.includes(error?.code) && /uncache|snapshot/.test(error.message)

async function rowsOf (db, text, parameters) {
  const result = await (typeof db === 'function'
    ? db(text, parameters)
    : db.query(text, parameters))
  return Array.isArray(result) ? result : result.rows
}

export const isPool = db => typeof db.totalCount === 'number'

export function checkDatabase (db) {
  if (typeof db === 'function' || typeof db?.query === 'function') return db
  throw new TypeError('db must be a Pool or Client of pg, or a function (text, parameters)')
}
