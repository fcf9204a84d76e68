# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"
require "socket"

include Tap

# A busy machine adds to every time; these are what would be seen without the bound: a hanging
# Redis costs redis-rb a second and more for each command.
SLACK_MS = 400

db = Servers.table("outage_users", "outage:{id}", 5)
name = ->(c) { c.exec("SELECT name FROM outage_users WHERE id = 1").getvalue(0, 0) }
make = lambda do |url = Servers.redis_url, **options|
  PgUncache::Fence.new(Redis.new(url: url), **{ db: db, ttl_ms: 60_000 }.merge(options))
end

test "a Redis that hangs" do
  fence = make.call
  until_true { fence.fetch("outage:1", &name) && fence.counters[:hit].positive? }
  before = fence.counters
  Servers.stop
  value = nil
  first = ms { value = fence.fetch("outage:1", &name) }
  is("a value comes from the database", value, "n1")
  ok("the first request waits for the timeout (#{first.round} ms)", first < 50 + SLACK_MS)
  rest = ms { 100.times { fence.fetch("outage:1", &name) } }
  ok("100 more wait not at all (#{rest.round} ms)", rest < 100 * 50 / 4)
  is("... and are counted", fence.counters[:unfenced] - before[:unfenced], 101)
  own = Array.new(20) { make.call(db: Servers.pg) }
  threads = own.map { |one| Thread.new { ms { one.fetch("outage:1", &name) } } }
  ok("new clients wait once, side by side", threads.map(&:value).max < 50 + 3 * SLACK_MS)
  Servers.continue
  back = until_true { fence.fetch("outage:1", &name) && fence.counters[:hit] > before[:hit] }
  ok("it is used again when it answers", back)
ensure
  Servers.continue
end

test "a port that nobody listens on" do
  closed = TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
  fence = make.call("redis://127.0.0.1:#{closed}")
  took = ms { is("a value comes from the database", fence.fetch("outage:1", &name), "n1") }
  ok("... at once (#{took.round} ms)", took < 50 + SLACK_MS)
  many = ->(keys, _) { keys.to_h { |key| [key, 1] } }
  took = ms { 100.times { fence.fetch_many(%w[outage:1 outage:2], &many) } }
  ok("... and so do many (#{took.round} ms)", took < 100 * 50 / 4)
  ok("the reason is told", fence.link.last_error.to_s.match?(/refused/i))
  served = TCPServer.open("127.0.0.1", 0)
  hung = make.call("redis://127.0.0.1:#{served.addr[1]}")
  took = ms { is("one that accepts and says nothing", hung.fetch("outage:1", &name), "n1") }
  ok("... costs the timeout (#{took.round} ms)", took < 50 + SLACK_MS)
end

test "a connection that the server closes" do
  fence = make.call(redis_timeout_ms: 1000)
  fence.fetch("outage:1", &name)
  unfenced = fence.counters[:unfenced]
  Servers.redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
  fence.fetch("outage:1", &name)
  is("is no outage", fence.counters[:unfenced] - unfenced, 0)
end

test "wrong answers" do
  fence = make.call(redis_timeout_ms: 1000)
  admin = Servers.redis
  admin.call("ACL", "SETUSER", "nothing", "on", ">secret", "~*", "+get")
  limited = make.call(Servers.redis_url.sub("//", "//nothing:secret@"), redis_timeout_ms: 1000)
  admin.del("outage:1")
  is("a reader without rights is served", limited.fetch("outage:1", &name), "n1")
  ok("... and counted as unfenced", limited.counters[:unfenced] == 1, limited.counters)
  wrong = make.call(Servers.redis_url.sub("//", "//nothing:wrong@"), redis_timeout_ms: 1000)
  is("so is one with a wrong password", wrong.fetch("outage:1", &name), "n1")
  ok("... and the reason is told", wrong.link.last_error.to_s.include?("WRONGPASS"),
     wrong.link.last_error)
  ok("the one with rights stores", fence.fetch("outage:1", &name) && fence.counters[:stored] == 1)
ensure
  admin&.call("ACL", "DELUSER", "nothing")
end
