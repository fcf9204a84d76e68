# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"

include Tap

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
