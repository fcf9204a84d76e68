# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"

include Tap

unless Servers.leases?
  skip("leases", "the functions of this server have none")
  exit
end

db = Servers.table("lease_users", "lease:{id}", 5)
HERD = 200
SESSIONS = 40

# Readers in processes of their own, so that only the lease can hold them together.
def herd(processes, threads, lease_ms)
  gate, opener = IO.pipe
  children = Array.new(processes) do
    reader, writer = IO.pipe
    pid = fork do
      opener.close
      writer.write(readers(threads, gate, lease_ms))
      exit!(0)
    end
    writer.close
    [pid, reader]
  end
  sleep 1 # all are at the gate; a late one is a reader like others
  opener.close
  children.map { |pid, reader| reader.read.tap { Process.wait(pid) } }
          .map { |text| Marshal.load(text) }
end

def readers(threads, gate, lease_ms)
  loads = Queue.new
  mine = Servers.pg
  lock = Mutex.new
  checkout = ->(&use) { lock.synchronize { use.call(mine) } }
  times = Array.new(threads) do
    fence = PgUncache::Fence.new(Servers.redis, db: checkout, ttl_ms: 60_000, lease_ms: lease_ms,
                                                redis_timeout_ms: 10_000)
    Thread.new do
      gate.read
      ms do
        fence.fetch("lease:1") do |c|
          loads << 1
          c.exec("SELECT pg_sleep(0.5), name FROM lease_users WHERE id = 1").getvalue(0, 1)
        end
      end
    end
  end
  done = times.map(&:value)
  Marshal.dump([loads.size, done])
end

# Returns how many of the readers asked the database.
def invalidated(db, lease_ms)
  db.exec("UPDATE lease_users SET name = name || 'x' WHERE id = 1")
  results = herd(SESSIONS, HERD / SESSIONS, lease_ms)
  loads = results.sum(&:first)
  times = results.flat_map(&:last).sort
  puts "# #{HERD} readers, #{lease_ms ? 'with' : 'without'} leases: #{loads} queries of 500 ms, " \
       "p99 of the readers #{times[(HERD * 0.99).to_i].round} ms"
  loads
end

test "a herd" do
  without = invalidated(db, nil)
  loads = invalidated(db, 10_000)
  ok("#{HERD} readers of a key that was invalidated make at most 2 queries", loads <= 2, loads)
  ok("... and many without leases", without > 10, without)
end

test "a filler that dies" do
  redis = Servers.redis
  redis.del("lease:2")
  reader, writer = IO.pipe
  child = fork do
    mine = Servers.pg
    fence = PgUncache::Fence.new(Servers.redis, db: mine, ttl_ms: 60_000, lease_ms: 1000,
                                                redis_timeout_ms: 5000)
    fence.fetch("lease:2") do
      writer.write("x")
      sleep
    end
  end
  reader.read(1)
  Process.kill(:KILL, child)
  Process.wait(child)
  fence = PgUncache::Fence.new(Servers.redis, db: db, ttl_ms: 60_000, lease_ms: 1000,
                                              redis_timeout_ms: 5000)
  took = ms { fence.fetch("lease:2") { "mine" } }
  ok("... costs the next no more than its lease (#{took.round} ms)", took < 5000)
  filled = until_true { fence.fetch("lease:2") { "mine" } && redis.get("lease:2") }
  ok("the key is filled then", filled)
  is("waiting is counted", fence.counters[:waited] >= 1, true)
end

test "a block that fails" do
  fence = PgUncache::Fence.new(Servers.redis, db: db, ttl_ms: 60_000, lease_ms: 60_000,
                                              redis_timeout_ms: 5000)
  begin
    fence.fetch("lease:3") { raise "mine" }
  rescue RuntimeError
    took = ms { fence.fetch("lease:3") { 3 } }
    ok("ends its lease (#{took.round} ms)", took < 20_000 && fence.counters[:stored] == 1)
  end
end
