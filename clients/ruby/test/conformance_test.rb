# frozen_string_literal: true

require_relative "tap"
require "pg_uncache"
require "json"
require "base64"

# Runs clients/conformance/cases.json; its README says what each step means.
class Conformance
  HAS = %w[concurrency standby pgbouncer signal].freeze
  PORTS = { nil => "PGPORT", "primary" => "PGPORT", "standby" => "STANDBY_PORT",
            "pgbouncer" => "PGBOUNCER_PORT" }.freeze
  Failed = Class.new(StandardError)

  def initialize
    @file = JSON.parse(File.read("#{ENV.fetch('CONFORMANCE')}/cases.json"))
    @has = HAS + (Servers.leases? ? ["lease"] : [])
    @redis = Servers.redis(timeout: 5)
    @admin = Servers.pg
    @file["setup"].each { |sql| @admin.exec(sql) }
  end

  def run
    @file["cases"].each do |one|
      missing = one.fetch("needs", []) - @has
      next Tap.skip(one["name"], "needs #{missing.join(', ')}") unless missing.empty?

      run_case(one)
    end
  end

  private

  def run_case(one)
    @saved = {}
    @sessions = {}
    @fences = {}
    @options = @file["options"].merge(one.fetch("options", {}))
    @file["reset"].each { |sql| @admin.exec(sql) }
    one["steps"].each_with_index do |step, i|
      step(step)
    rescue Failed, StandardError => e
      return Tap.ok(one["name"], false, "step #{i + 1}: #{JSON.generate(step)}",
                    "#{e.class}: #{e.message}", *e.backtrace.first(4))
    end
    Tap.ok(one["name"], true)
  ensure
    Servers.continue
    @sessions.each_value(&:close)
  end

  def step(step)
    kind = step.keys.first
    send("do_#{snake(kind)}", step)
  end

  def snake(name)
    name.gsub(/[A-Z]/) { |letter| "_#{letter.downcase}" }
  end

  def expect(got, wanted, what = "reply")
    raise Failed, "#{what}: got #{got.inspect}, not #{wanted.inspect}" unless same?(got, wanted)
  end

  def same?(got, wanted)
    case wanted
    when Hash then same_as_said?(got, wanted)
    when Array
      got.is_a?(Array) && (0...[got.size, wanted.size].max).all? { |i| same?(got[i], wanted[i]) }
    when String then got.is_a?(String) && got.b == wanted.b
    else got == wanted
    end
  end

  def same_as_said?(got, said)
    return !got.nil? if said["any"]
    return got.is_a?(Exception) && got.message.include?(said["error"]) if said.key?("error")
    return got.b == Base64.decode64(said["base64"]) if said.key?("base64")

    got.is_a?(String) && JSON.parse(got.dup.force_encoding("UTF-8")) == said["json"]
  end

  def filled(words)
    words.map { |word| word.to_s.start_with?("$") ? @saved.fetch(word[1..], word) : word }
  end

  def session(name, on = nil)
    @sessions[[name, on]] ||= Servers.pg(port: ENV.fetch(PORTS.fetch(on)))
  end

  def keep(step, reply)
    return unless step["save"]

    reply = reply[step["at"]] if step.key?("at")
    @saved[step["save"]] = reply
  end

  def do_sql(step)
    result = session(:steps, step["on"]).exec_params(step["sql"], filled(step.fetch("params", [])))
    reply = result.ntuples.positive? ? result.getvalue(0, 0) : nil
    expect(reply, step["reply"]) if step.key?("reply")
    keep(step, reply)
  end

  def do_redis(step)
    reply = begin
      @redis.call(*filled(step["redis"]))
    rescue Redis::CommandError => e
      e
    end
    raise reply if reply.is_a?(Exception) && !step.key?("reply")

    expect(reply, step["reply"]) if step.key?("reply")
    keep(step, reply)
  end

  # One client a case, and one for each server that its database is asked on.
  def fence(on = nil, **more)
    @fences[[on, more.keys]] ||= begin
      options = @options.transform_keys { |name| snake(name).to_sym }
      PgUncache::Fence.new(Servers.redis, db: session(:client, on), warn: ->(_) {},
                                          **options, **more)
    end
  end

  def first(result)
    result.ntuples.positive? ? result.getvalue(0, 0) : nil
  end

  # Calls what the block says, and compares.
  def compare(step)
    loads = 0
    value = nil
    took = Tap.ms do
      value = yield(-> { loads += 1 })
    rescue PG::Error
      raise unless step["fails"]

      return
    end
    raise Failed, "no error" if step["fails"]

    raise Failed, "value #{value.inspect}" if step.key?("value") && value != step["value"]

    expect(loads, step["loads"], "loads") if step.key?("loads")
    limit = step["atMostMs"]
    raise Failed, "took #{took.round} ms" if limit && took > limit
  end

  def do_fetch(step)
    step.fetch("before", []).each { |sql| session(:client, step["on"]).exec(sql) }
    compare(step) do |loaded|
      fence(step["on"]).fetch(step["fetch"]) { |db| load(step, db, loaded) }
    end
    step.fetch("after", []).each { |sql| session(:client, step["on"]).exec(sql) }
  end

  def load(step, connection, loaded)
    loaded.call
    value = first(connection.exec(step["load"]))
    step.fetch("during", []).each { |inner| step(inner) }
    value
  end

  def do_fetch_many(step)
    compare(step) do |loaded|
      fence.fetch_many(step["fetchMany"]) do |keys, db|
        loaded.call
        text = PG::TextEncoder::Array.new.encode(keys)
        parameters = step["load"].include?("$1") ? [text] : []
        db.exec_params(step["load"], parameters).values.to_h
      end
    end
  end

  def do_fetch_sql(step)
    compare(step) { |_| fence.fetch_sql(step["fetchSql"], step["sql"], step.fetch("params", [])) }
  end

  def do_transaction(step)
    compare(step) do |_|
      fence.transaction(step["transaction"]) do |db|
        first(step["statements"].map { |sql| db.exec(sql) }.last)
      end
    end
  end

  def do_tags(step)
    compare(step) do |loaded|
      fence.tags(step["tags"]) do |state|
        fence.fetch("#{step['page']}:#{state}") { |db| load(step, db, loaded) }
      end
    end
  end

  def do_undefined(step)
    value = fence.fetch(step["undefined"]) {}
    expect(value, nil, "value")
    raise Failed, "empty text" if @redis.get(step["undefined"]) == ""
  end

  def do_bytes(step)
    bytes = Base64.decode64(step["base64"])
    same = ->(value) { value }
    2.times do
      got = fence(nil, encode: same, decode: same).fetch(step["bytes"]) { bytes }
      expect(got.b, bytes, "bytes")
    end
  end

  # Sessions of their own, out of a proc that hands them out.
  def do_readers(step)
    pool = Queue.new
    readers = step["readers"]
    readers.times { pool << Servers.pg }
    checkout = lambda do |&use|
      connection = pool.pop
      use.call(connection)
    ensure
      pool << connection if connection
    end
    loads = Queue.new
    many = PgUncache::Fence.new(Servers.redis, db: checkout, ttl_ms: 60_000,
                                               redis_timeout_ms: 5000,
                                               lease_ms: @options["leaseMs"])
    values = Array.new(readers) do
      Thread.new { many.fetch(step["fetch"]) { |db| slow(step, db, loads) } }
    end
    values.each { |thread| expect(thread.value, step["value"], "value") }
    raise Failed, "#{loads.size} loads" if loads.size > step["loadsAtMost"]
  ensure
    pool.pop.close until pool.empty?
  end

  def slow(step, connection, loads)
    loads << 1
    sleep 0.1
    first(connection.exec(step["load"]))
  end

  def do_signal(step)
    step["signal"] == "STOP" ? Servers.stop : Servers.continue
  end

  def do_counters(step)
    counts = @fences.values.map(&:counters).reduce { |a, b| a.merge(b) { |_, x, y| x + y } } || {}
    step["counters"].each { |name, number| expect(counts[name.to_sym], number, name) }
  end

  def do_until(step)
    error = nil
    Tap.until_true(step["seconds"]) do
      step(step["until"])
      true
    rescue Failed => e
      error = e
      false
    end or raise error
  end
end

Conformance.new.run
