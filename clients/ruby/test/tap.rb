# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
$stdout.sync = true
require "pg"
require "redis"

Thread.report_on_exception = false

# Tests print "ok - name" and "not ok - name"; test/run numbers them.
module Tap
  module_function

  def ok(name, passed, *why)
    puts "#{passed ? 'ok' : 'not ok'} - #{name}"
    why.each { |line| puts "# #{line}" } unless passed
    passed
  end

  def is(name, got, expected)
    ok(name, got == expected, "got      #{got.inspect}", "expected #{expected.inspect}")
  end

  def raises(name, type, words = //)
    yield
    ok(name, false, "no error")
  rescue type => e
    ok(name, e.message.match?(words), "#{e.class}: #{e.message}")
  end

  def skip(name, reason)
    puts "ok - #{name} # SKIP #{reason}"
  end

  # A block that must not run.
  def flunk
    raise "the database is asked"
  end

  # An error in a test is a failure of it, not the end of the file.
  def test(name)
    yield
  rescue StandardError => e
    ok(name, false, "#{e.class}: #{e.message}", *e.backtrace.first(8))
  end

  # Polls until the block is true.
  def until_true(seconds = 30)
    deadline = now + seconds
    until (value = yield)
      return nil if now > deadline

      sleep 0.02
    end
    value
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def ms
    start = now
    yield
    (now - start) * 1000
  end
end

# The servers, as clients/README.md names them.
module Servers
  module_function

  def pg(port: ENV.fetch("PGPORT"), dbname: ENV.fetch("PGDATABASE"))
    connection = PG.connect(host: ENV.fetch("PGHOST"), port: port, dbname: dbname,
                            user: ENV.fetch("PGUSER"))
    connection.set_notice_processor { |_| }
    connection
  end

  def redis_url
    ENV.fetch("REDIS_URL")
  end

  def redis(**options)
    Redis.new(url: redis_url, **options)
  end

  # redis-rb 4 takes REDIS_URL, with its number of a database, for the nodes of a cluster.
  def cluster
    ENV.delete("REDIS_URL")
    port = ENV.fetch("REDIS_CLUSTER_PORT").to_i
    nodes = (port..port + 2).map { |each| "redis://127.0.0.1:#{each}" }
    return Redis.new(cluster: nodes) if Redis::VERSION < "5"

    require "redis-clustering"
    Redis::Cluster.new(nodes: nodes)
  end

  # A table with rows 1..count and a rule.
  def table(name, key, count, connection = pg)
    connection.exec("DROP TABLE IF EXISTS #{name}")
    connection.exec("CREATE TABLE #{name} (id int PRIMARY KEY, name text, version int DEFAULT 0)")
    connection.exec("INSERT INTO #{name} SELECT i, 'n' || i FROM generate_series(1, #{count}) i")
    connection.exec("SELECT uncache.attach('#{name}', '#{key}')")
    connection.exec("SELECT uncache.invalidate_table('#{name}'), uncache.wait()")
    connection.exec("SELECT uncache.wait()")
    connection
  end

  def stop = Process.kill(:STOP, ENV.fetch("REDIS_PID").to_i)

  def continue = Process.kill(:CONT, ENV.fetch("REDIS_PID").to_i)

  # Whether the functions know leases.
  def leases?
    redis.call("FCALL", "uncache_get", 1, "no:such:key", 10)
    redis.call("FCALL", "uncache_set", 1, "no:such:key", "", 1, "")
    true
  rescue Redis::CommandError
    false
  end
end
