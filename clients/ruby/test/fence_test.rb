# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"
require "stringio"

include Tap

db = Servers.table("fence_users", "fence:{id}", 20)
redis = Servers.redis
make = lambda do |**options|
  PgUncache::Fence.new(Servers.redis, **{ db: db, ttl_ms: 60_000, redis_timeout_ms: 1000 }
                                           .merge(options))
end
name = ->(id) { ->(c) { c.exec("SELECT name FROM fence_users WHERE id = #{id}").getvalue(0, 0) } }

test "options" do
  raises("ttl_ms must be whole", ArgumentError, /ttl_ms.*milliseconds.*1\.5/) do
    make.call(ttl_ms: 1.5)
  end
  raises("... and positive", ArgumentError, /ttl_ms/) { make.call(ttl_ms: 0) }
  raises("lease_ms has a range", ArgumentError, /1 to 60000/) { make.call(lease_ms: 60_001) }
  raises("shadow is a share", ArgumentError, /share/) { make.call(shadow: 2) }
  raises("shadow needs a database", PgUncache::UsageError, /db:/) do
    make.call(db: nil, snapshot: ->(_) {}, shadow: 0.5)
  end
  raises("a database or a snapshot is needed", PgUncache::UsageError, /db: or snapshot:/) do
    make.call(db: nil)
  end
  raises("... not both", PgUncache::UsageError, /db: or snapshot:/) do
    make.call(snapshot: ->(_) {})
  end
  raises("redis must be one", PgUncache::UsageError, /not Integer/) do
    PgUncache::Fence.new(1, db: db, ttl_ms: 1)
  end
  require "redis/distributed" if Redis::VERSION < "5"
  if defined?(Redis::Distributed)
    raises("Redis::Distributed is refused", PgUncache::UsageError, /Distributed/) do
      PgUncache::Fence.new(Redis::Distributed.new([Servers.redis_url]), db: db, ttl_ms: 1)
    end
  end
end

test "kinds of redis" do
  { "an address" => Servers.redis_url, "options" => { url: Servers.redis_url },
    "a proc" => -> { Servers.redis } }.each do |what, given|
    fence = PgUncache::Fence.new(given, db: db, ttl_ms: 60_000, redis_timeout_ms: 1000)
    redis.del("fence:1")
    fence.fetch("fence:1", &name.call(1))
    is("redis as #{what}", fence.fetch("fence:1") { flunk }, "n1")
  end
  require "connection_pool"
  pool = ConnectionPool.new(size: 2) { Servers.redis }
  fence = PgUncache::Fence.new(pool, db: db, ttl_ms: 60_000, redis_timeout_ms: 1000)
  is("redis as a pool", fence.fetch("fence:1") { flunk }, "n1")
  dbs = ConnectionPool.new(size: 2) { Servers.pg }
  fence = make.call(db: dbs)
  redis.del("fence:1")
  2.times { fence.fetch("fence:1", &name.call(1)) }
  is("db as a pool", fence.counters.slice(:hit, :stored), { hit: 1, stored: 1 })
end

test "snapshot:" do
  asked = []
  fence = make.call(db: nil, snapshot: lambda { |token|
    asked << token
    db.exec_params("SELECT uncache.snapshot($1)", [token]).getvalue(0, 0)
  })
  redis.del("fence:1")
  2.times { fence.fetch("fence:1") { |_| name.call(1).call(db) } }
  is("a lambda takes the snapshots", [asked.size, fence.counters[:hit]], [1, 1])
  raises("fetch_sql needs db:", PgUncache::UsageError) { fence.fetch_sql("fence:9", "SELECT 1") }
end

test "values" do
  fence = make.call
  redis.del("fence:1", "fence:2", "fence:3")
  value = fence.fetch("fence:1") { { a: 1, t: :b } }
  is("a miss looks like a hit", value, { "a" => 1, "t" => "b" })
  is("nil is a value", [fence.fetch("fence:2") { nil }, fence.fetch("fence:2") { flunk },
                        redis.get("fence:2")], [nil, nil, "null"])
  events = []
  fence = make.call(on_event: ->(*event) { events << event })
  value = fence.fetch("fence:3") { "\xff".b }
  is("a value that can't be encoded is served", value, "\xff".b)
  is("... not stored, and counted with its reason",
     [redis.get("fence:3"), events.last[0], events.last[1][:reason][0, 27]],
     [nil, :unfenced, "the value can't be encoded:"])
  fence = make.call(on_event: ->(*) { raise "mine" }, warn: ->(text) { events << text })
  fence.fetch("fence:1") { 1 }
  fence.fetch("fence:1") { 1 }
  is("an on_event that fails is warned of once",
     events.grep(/on_event failed: RuntimeError: mine/).size, 1)
end

test "single flight" do
  fence = make.call(db: ->(&use) { use.call(Servers.pg) }, lease_ms: nil)
  redis.del("fence:4")
  begun = Queue.new
  go = Queue.new
  loads = Queue.new
  load = lambda do |tag|
    Thread.new do
      fence.fetch("fence:4") do |_|
        loads << tag
        begun << 1
        go.pop
        tag
      end
    end
  end
  first = load.call("first")
  begun.pop
  # Redis forgets the fill's value: the next reader must load by itself, or wait for such a one.
  later = Array.new(5) { |i| load.call("later #{i}") }
  until_true { later.all? { |t| t.status == "sleep" } }
  is("a running flight is not joined", loads.size, 1)
  go << 1
  first.value
  redis.del("fence:4")
  5.times { go << 1 }
  values = later.map(&:value)
  is("those who waited take the value of one of them, or the cache's", values.uniq.size <= 2, true)
  ok("... and few of them have loaded", loads.size <= 3, loads.size)

  flights = PgUncache::Flights.new
  gate = Queue.new
  one = Thread.new { flights.fly("k") { gate.pop } }
  until_true { one.status == "sleep" }
  order = Queue.new
  two = Thread.new { flights.fly("k") { order << 2; 2 } }
  until_true { two.status == "sleep" }
  three = Thread.new { flights.fly("k") { order << 3; 3 } }
  until_true { three.status == "sleep" }
  gate << 1
  is("one flies, one waits, others board the one that waits",
     [one.value, two.value, three.value, order.size], [[1, false], [2, false], [2, true], 1])

  leader = Thread.new { flights.fly("k") { sleep } }
  until_true { leader.status == "sleep" }
  waiting = Thread.new { flights.fly("k") { sleep } }
  until_true { waiting.status == "sleep" }
  passenger = Thread.new { flights.fly("k") { 7 } }
  until_true { passenger.status == "sleep" }
  leader.kill
  waiting.kill
  is("a flight whose thread is killed strands nobody", passenger.value, [7, false])
  inner = flights.fly("k") { flights.fly("k") { 5 } }
  is("a block that reads its own key does not wait for itself", inner, [[5, false], false])
  raises("an error reaches the caller", RuntimeError, /mine/) { flights.fly("k") { raise "mine" } }
  is("... and the key can be read again", flights.fly("k") { 6 }, [6, false])
end

test "wrong uses" do
  fence = make.call
  redis.del("fence:5")
  db.exec("BEGIN")
  value = fence.fetch("fence:5") do |c|
    c.exec("UPDATE fence_users SET name = 'mine' WHERE id = 5")
    name.call(5).call(c)
  end
  db.exec("ROLLBACK")
  is("a block that writes in the caller's transaction stores nothing",
     [value, redis.get("fence:5"), fence.counters[:unfenced]], ["mine", nil, 1])
  db.exec("BEGIN")
  raises("transaction() in a transaction", PgUncache::UsageError, /there is one already/) do
    fence.transaction("fence:5") { 1 }
  end
  db.exec("ROLLBACK")
  raises("transaction() may not write", PG::ReadOnlySqlTransaction) do
    fence.transaction("fence:5") { |c| c.exec("UPDATE fence_users SET name = 'x' WHERE id = 5") }
  end
  is("... and its session is usable", db.transaction_status, PG::PQTRANS_IDLE)
  db.exec("BEGIN ISOLATION LEVEL REPEATABLE READ")
  db.exec("SELECT 1")
  Servers.pg.exec("UPDATE fence_users SET name = 'new' WHERE id = 5")
  fence.fetch("fence:5", &name.call(5))
  db.exec("COMMIT")
  ok("an old snapshot does not store what is older than the last write", redis.get("fence:5").nil?)
  begin
    db.exec("BEGIN")
    db.exec("SELECT 1 / 0")
  rescue PG::Error
    raises("in a failed transaction the error is the database's", PG::InFailedSqlTransaction) do
      fence.fetch("fence:5", &name.call(5))
    end
  end
  db.exec("ROLLBACK")
end

test "tags" do
  fence = make.call
  redis.del("fence:7", "fence:8")
  page = lambda do |with, name|
    with.tags(%w[fence:7 fence:8]) { |state| [state, with.fetch("#{name}:#{state}") { name }] }
  end
  first = page.call(fence, "page")
  is("the same state until a tag is invalidated", page.call(fence, "page"), first)
  is("... and the page comes from Redis", fence.counters[:hit], 1)
  is("the state has 128 bits of each tag", first[0].match?(/\A\h{32}\.\h{32}\z/), true)
  db.exec("UPDATE fence_users SET name = 'tagged' WHERE id = 8")
  second = page.call(fence, "page")
  ok("then it is another", second[0] != first[0] && second[0][0, 32] == first[0][0, 32], second)
  redis.set("fence:8", "7")
  before = fence.counters
  third = page.call(fence, "page")
  is("what is no nonce is none, and nothing is stored below it",
     [third[1], redis.keys("page:*").grep(/#{third[0]}/),
      fence.counters[:stored] - before[:stored], fence.counters[:unfenced] - before[:unfenced]],
     ["page", [], 0, 1])
  other = Servers.pg
  redis.del("fence:7", "fence:8")
  refused = make.call(db: nil, snapshot: lambda { |token|
    db.exec_params("SELECT uncache.snapshot($1)", [token]).getvalue(0, 0).tap do
      other.exec("UPDATE fence_users SET name = name || 'x' WHERE id IN (7, 8)")
    end
  })
  fourth = page.call(refused, "late")
  is("a nonce that was refused stores no page",
     [fourth[1], redis.keys("late:*"), refused.counters[:unfenced]], ["late", [], 1])
  raises("no tags", PgUncache::UsageError, /one at least/) { fence.tags([]) { flunk } }
end

test "fork" do
  fence = make.call
  fence.fetch("fence:6", &name.call(6))
  reader, writer = IO.pipe
  child = fork do
    mine = Servers.pg
    own = PgUncache::Fence.new(Servers.redis, db: mine, ttl_ms: 1000, redis_timeout_ms: 1000)
    writer.write([fence.fetch("fence:6") { "from the database" }, own.counters[:hit]].join(","))
    exit!(0)
  end
  writer.close
  200.times { fence.fetch("fence:6") { "from the database" } }
  Process.wait(child)
  is("a child does not talk over its parent's connection", reader.read, "n6,0")
end

test "the warning" do
  warnings = []
  seconds = [1000.0]
  counters = PgUncache::Counters.new(warn: ->(text) { warnings << text }, clock: -> { seconds[0] })
  3.times { counters.add(:unfenced, "k", reason: "the reason").then { seconds[0] += 29 } }
  is("no warning before a minute is over", warnings, [])
  3.times { counters.add(:unfenced, "k", reason: "the reason").then { seconds[0] += 60 } }
  is("one warning behind it", warnings.size, 1)
  ok("... with the reason and the way out", warnings[0].to_s.match?(/the reason.*uncache\.stat/))
  counters.add(:stored, "k")
  2.times { counters.add(:unfenced, "k", reason: "again").then { seconds[0] += 61 } }
  is("and one when it begins again", warnings.size, 2)
end

test "the shadow check" do
  count = 10_000
  Servers.table("shadows", "shadow:{id}", count)
  fence = make.call(shadow: 1)
  keys = (1..count).map { |i| "shadow:#{i}" }
  load = lambda do |missing, c|
    ids = missing.map { |key| key[7..] }.join(",")
    c.exec("SELECT 'shadow:' || id, name FROM shadows WHERE id IN (#{ids})").values.to_h
  end
  keys.each_slice(1000) { |some| fence.fetch_many(some, &load) }
  redis.set("shadow:4711", '"stale"', keepttl: true)
  keys.each do |key|
    fence.fetch(key) { |c| load.call([key], c)[key] }
  end
  is("one stale value in 10,000 is found",
     fence.counters.values_at(:checked, :found_stale), [count, 1])

  # Reports go in hundreds; the last checks may not have been told yet.
  sql = "SELECT checked > #{count - 100} AND found_stale >= 1 FROM uncache.stat"
  told = until_true { db.exec(sql).getvalue(0, 0) == "t" }
  ok("... and shows in uncache.stat", told)

  fence = make.call(shadow: 1)
  redis.del("shadow:1")
  writer = Servers.pg
  fence.fetch("shadow:1") { "first" }
  fence.fetch("shadow:1") do
    writer.exec("SELECT uncache.invalidate_keys('shadow:1')")
    "second"
  end
  is("a value that changes under the check is not stale",
     fence.counters.values_at(:checked, :found_stale), [1, 0])
end
