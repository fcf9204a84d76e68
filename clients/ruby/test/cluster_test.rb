# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"

include Tap

URL = Servers.redis_url
name = "#{ENV.fetch('PGDATABASE')}_cluster"
db = Servers.table("cluster_users", "cluster:{id}", 50, Servers.pg(dbname: name))
until_true { db.exec("SELECT fence FROM uncache.stat").getvalue(0, 0) == "on" }
keys = (1..50).map { |id| "cluster:#{id}" }
load = lambda do |missing, c|
  ids = missing.map { |key| key[8..] }.join(",")
  c.exec("SELECT 'cluster:' || id, name FROM cluster_users WHERE id IN (#{ids})").values.to_h
end

test "a Redis Cluster" do
  why = []
  fence = PgUncache::Fence.new(Servers.cluster, db: db, ttl_ms: 60_000, redis_timeout_ms: 2000,
                                                on_event: ->(*event) { why << event })
  values = fence.fetch_many(keys, &load)
  is("many keys of all nodes are read", values.size, 50)
  is("... and stored", fence.counters[:stored], 50) ||
    puts("# #{why.map { |event, about| [event, about[:reason]] }.tally}")
  fence.fetch_many(keys) { flunk }
  is("... and found", fence.counters[:hit], 50)
  db.exec("UPDATE cluster_users SET name = 'new'")
  values = keys.map { |key| fence.fetch(key) { |c| load.call([key], c)[key] } }
  is("what was changed is read anew", values.uniq, ["new"])
  is("... and stored, one by one", fence.counters[:stored], 100)
  is("a key whose record has no place in its slot is served",
     [fence.fetch("cluster}1") { 1 }, fence.counters[:unfenced]], [1, 1])
end

# A master that hangs for a while (CLIENT PAUSE); it costs one wait, and only its own keys.
test "a master that hangs" do
  timeout = 100
  fence = PgUncache::Fence.new(Servers.cluster, db: db, ttl_ms: 60_000, redis_timeout_ms: timeout)
  until_true { fence.fetch_many(keys, &load).size == 50 && fence.counters[:hit] >= 50 }
  node = Redis.new(host: "127.0.0.1", port: ENV.fetch("REDIS_CLUSTER_PORT").to_i)
  mine, others = keys.partition do |key|
    node.get(key)
    true
  rescue Redis::CommandError # MOVED
    false
  end
  read = lambda do |some|
    before = fence.counters[:hit]
    took = some.map { |key| ms { fence.fetch(key) { |c| load.call([key], c)[key] } } }
    [fence.counters[:hit] - before, took]
  end
  node.call("CLIENT", "PAUSE", 5000, "ALL")
  hits, took = read.call(mine)
  ok("the first request waits (#{took.first.round} ms), the next #{took.size - 1} do not " \
     "(#{took.drop(1).sum.round} ms)",
     hits.zero? && took.first < timeout + 1000 && took.drop(1).sum < timeout * took.size / 4)
  hits, took = read.call(others)
  ok("keys of the others are hits (#{took.sum.round} ms for #{others.size})",
     hits == others.size, hits)
  ok("its keys are hits again when it answers", until_true { read.call(mine)[0] == mine.size })
end

begin
  require "redis-client"
rescue LoadError
  exit # redis-rb 4 does without
end

test "redis-client without redis-rb" do
  db = Servers.table("client_users", "client:{id}", 3)
  config = RedisClient.config(url: URL)
  { "a client" => config.new_client, "a pool" => config.new_pool(size: 2) }.each do |what, redis|
    fence = PgUncache::Fence.new(redis, db: db, ttl_ms: 60_000, redis_timeout_ms: 1000)
    redis.call("DEL", "client:1")
    2.times { fence.fetch_many(%w[client:1 client:2]) { |missing, _| missing.to_h { |k| [k, 1] } } }
    ok(what, fence.counters[:hit] >= 2 && fence.counters[:unfenced].zero?, fence.counters)
  end
end
