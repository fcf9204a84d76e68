# frozen_string_literal: true

require_relative "rails"

include Tap

# Sessions read and write a few rows through a cache.  Between its look at the database and its
# store a reader pauses, as one does that renders or waits for a core.  A read is stale if it gives
# a version older than one whose COMMIT had returned before the read began.
SECONDS = Float(ENV.fetch("RACE_SECONDS", 10))
READERS = 46
WRITERS = 4
KEYS = 8
OTHER = RailsParts.table(KEYS)

# reads: a lambda that makes a reader, a lambda from a row's number to [version, from the cache].
def race(seconds, reads)
  committed = Array.new(KEYS + 1, 0)
  OTHER.exec("UPDATE rails_users SET version = 0")
  stop = now + seconds
  writers = Array.new(WRITERS) { |i| Thread.new { write(committed, i, stop) } }
  readers = Array.new(READERS) { |i| Thread.new { read(reads.call(i), committed, stop) } }
  writers.each(&:value)
  readers.map(&:value).transpose.map(&:sum)
end

# Each row has one writer, which knows the versions that are committed.
def write(committed, number, stop)
  db = Servers.pg
  mine = (1..KEYS).select { |id| id % WRITERS == number }
  while now < stop
    id = mine.sample
    db.exec("UPDATE rails_users SET version = version + 1 WHERE id = #{id}")
    committed[id] += 1
    sleep rand * 0.1
  end
ensure
  db&.close
end

def read(look, committed, stop)
  reads = stale = 0
  while now < stop
    id = rand(1..KEYS)
    floor = committed[id]
    version, counts = look.call(id)
    next unless counts

    reads += 1
    stale += 1 if version < floor
    sleep rand * 0.01
  end
  [reads, stale]
end

def pause
  sleep rand * 0.03
end

def version(connection, id)
  result = connection.exec("SELECT version FROM rails_users WHERE id = #{id}")
  result.getvalue(0, 0).to_i.tap { pause }
end

# A fence of each session, or one for all, over sessions of the given port and isolation.
def fence_reader(port, isolation: nil, **options)
  db = Servers.pg(port: port)
  db.exec("SET default_transaction_isolation = '#{isolation}'") if isolation
  fence = PgUncache::Fence.new(Servers.redis, db: db, ttl_ms: 60_000, redis_timeout_ms: 5000,
                                              **options)
  lambda do |id|
    loaded = false
    db.exec("BEGIN") && db.exec("SELECT 1") if isolation
    pause if isolation
    value = fence.fetch("user:#{id}") { |c| version(c, id).tap { loaded = true } }
    [value, yield(loaded)]
  ensure
    db.exec("COMMIT") if isolation
  end
end

lanes = {
  "plain: GET and SET" => lambda do |_|
    redis = Servers.redis
    db = Servers.pg
    lambda do |id|
      value = redis.get("user:#{id}")
      value ||= version(db, id).tap { |read| redis.set("user:#{id}", read, ex: 60) }
      [value.to_i, true]
    end
  end,
  "plain: RedisCacheStore" => lambda do |_|
    store = ActiveSupport::Cache::RedisCacheStore.new(url: Servers.redis_url, expires_in: 60)
    ->(id) { [store.fetch("user:#{id}") { User.find(id).version.tap { pause } }, true] }
  end,
  "fenced: Fence" => ->(_) { fence_reader(ENV.fetch("PGPORT")) { true } },
  "fenced: Fence without leases, behind PgBouncer" => lambda do |_|
    fence_reader(ENV.fetch("PGBOUNCER_PORT"), lease_ms: nil) { true }
  end,
  "fenced: UncacheStore" => lambda do |_|
    store = RailsParts.store
    ->(id) { [store.fetch("user:#{id}") { User.find(id).version.tap { pause } }, true] }
  end,
  # What these read from the database may be old; what is in the cache may not.
  "fenced: hits of REPEATABLE READ readers" => lambda do |_|
    fence_reader(ENV.fetch("PGPORT"), isolation: "repeatable read", lease_ms: nil, &:!)
  end,
  "fenced: hits of a standby's readers" => lambda do |_|
    fence_reader(ENV.fetch("STANDBY_PORT"), lease_ms: nil, &:!)
  end
}

shared = PgUncache::Fence.new(
  Servers.redis, db: ->(&use) { use.call(Thread.current[:db] ||= Servers.pg) },
                 ttl_ms: 60_000, redis_timeout_ms: 5000, lease_ms: nil
)
lanes["fenced: one Fence for all threads"] = lambda do |_|
  ->(id) { [shared.fetch("user:#{id}") { |c| version(c, id) }, true] }
end

lanes.each do |lane, make|
  OTHER.exec("SELECT uncache.invalidate_table('rails_users')")
  OTHER.exec("SELECT uncache.wait()")
  fenced = lane.start_with?("fenced")
  # Plain lanes only show that the race is one.
  reads, stale = race(fenced ? SECONDS : [SECONDS, 5].min, make)
  words = "#{lane}: #{stale} stale of #{reads}"
  fenced ? ok(words, stale.zero? && reads > 100) : ok(words, stale.positive?)
  GC.start
  ActiveRecord::Base.connection_handler.clear_all_connections!
end
