# frozen_string_literal: true

require_relative "rails"

include Tap

puts "# Rails #{ActiveSupport::VERSION::STRING}, redis-rb #{Redis::VERSION}"
other = RailsParts.table
redis = Servers.redis
update = ->(id, name) { other.exec("UPDATE rails_users SET name = '#{name}' WHERE id = #{id}") }
redis.del("limit:1", "raw:1", "other:1", "other:12")
User.reset_column_information

test "fetch" do
  store = RailsParts.store
  values = Array.new(2) { store.fetch("user:1") { User.find(1).name } }
  is("a miss is stored, and found", [values, store.counters.slice(:hit, :miss, :stored)],
     [%w[n1 n1], { hit: 1, miss: 1, stored: 1 }])
  update.call(1, "new")
  is("a write deletes it", store.fetch("user:1") { User.find(1).name }, "new")
  value = store.fetch("user:2") do
    User.find(2).name.tap { update.call(2, "new") }
  end
  is("a late reader is served, and refused",
     [value, redis.get("user:2"), store.counters[:refused]], ["n2", nil, 1])
  values = [store.fetch("user:99") { nil }, store.fetch("user:99") { flunk }]
  is("nil is a value", values, [nil, nil])
  is("... unless it is skipped",
     [store.fetch("user:98", skip_nil: true) { nil }, redis.get("user:98")], [nil, nil])
  took = ms { store.fetch("user:98") { 1 } }
  ok("... which ends the lease", took < 900 || store.counters[:waited].zero?)
  store.fetch("user:3") { { a: 1, at: Time.at(0), big: "x" * 5000 } }
  is("objects come back as they were", store.fetch("user:3") { flunk },
     { a: 1, at: Time.at(0), big: "x" * 5000 })
  ok("... for a time", redis.pttl("user:3").between?(30_000, 60_000), redis.pttl("user:3"))
  begin
    store.fetch("user:4") { raise "mine" }
  rescue RuntimeError => e
    is("an error of the block is the caller's", [e.message, redis.get("user:4")], ["mine", nil])
  end
end

test "read and write" do
  store = RailsParts.store
  is("read, write, read", [store.read("user:5"), store.write("user:5", 5), store.read("user:5")],
     [nil, true, 5])
  is("a ready value is not stored", [store.write("user:6", 6), store.read("user:6")], [false, nil])
  is("... and counted", store.counters[:unfenced], 1)
  is("exist?", [store.exist?("user:5"), store.exist?("user:6")], [true, false])
  is("delete", [store.delete("user:5") && true, store.read("user:5")], [true, nil])
end

test "many" do
  store = RailsParts.store
  store.fetch("user:10") { User.find(10).name }
  values = store.fetch_multi("user:10", "user:11", "other:12") { |key| User.find(key[/\d+/]).name }
  is("fetch_multi", values, { "user:10" => "n10", "user:11" => "n11", "other:12" => "n12" })
  is("... stores", store.fetch_multi("user:10", "user:11", "other:12") { flunk }, values)
  is("read_multi", store.read_multi("user:10", "user:11", "user:12", "other:12"), values)
  is("... of plain names alone", store.read_multi("other:12"), { "other:12" => "n12" })
  store.write_multi({ "user:12" => 12, "user:13" => 13 })
  values = store.read_multi("user:12", "user:13")
  is("write_multi stores what was missed", values, { "user:12" => 12 })
  values = store.fetch_multi("user:14", "user:15") do |key|
    update.call(14, "new") if key == "user:14"
    key
  end
  is("a late reader of one of many",
     [values.size, redis.exists?("user:14"), redis.exists?("user:15")], [2, false, true])
end

test "plain names" do
  store = RailsParts.store
  values = Array.new(2) { store.fetch("other:1") { 1 } }
  is("are stored as ever", [values, store.counters[:plain] >= 2], [[1, 1], true])
  is("counters", [store.increment("limit:1"), store.increment("limit:1", 2)], [1, 3])
  ok("raw", store.write("raw:1", "x", raw: true) && store.read("raw:1", raw: true) == "x")
  is("raw under a fenced name", [store.fetch("user:7", raw: true) { "x" }, redis.get("user:7")],
     %w[x x])
end

test "transactions" do
  store = RailsParts.store
  User.transaction do
    value = store.fetch("user:16") do
      User.find(16).update!(name: "mine")
      User.find(16).name
    end
    is("what a transaction that wrote has read is served", value, "mine")
    raise ActiveRecord::Rollback
  end
  is("... and not stored", redis.get("user:16"), nil)
  value = store.fetch("user:17") do
    name = nil
    User.transaction do
      User.find(17).update!(name: "mine")
      name = User.find(17).name
      raise ActiveRecord::Rollback
    end
    name
  end
  is("nor by a transaction inside the block that was rolled back",
     [value, redis.get("user:17")], ["mine", nil])
  store.fetch("user:18") { User.transaction { User.find(18).name } }
  ok("one that has only read stores", redis.exists?("user:18"))
  User.transaction { store.fetch("user:19") { User.find(19).name } }
  ok("... and so does one around it", redis.exists?("user:19"))
  User.transaction(isolation: :repeatable_read) do
    User.find(20)
    update.call(20, "new")
    store.fetch("user:20") { User.find(20).name }
  end
  is("an old snapshot stores nothing old", redis.get("user:20"), nil)
  User.transaction { store.read("user:21") }
  is("a snapshot ends with its transaction",
     [store.write("user:21", 21), redis.get("user:21")], [false, nil])
  begin
    User.transaction do
      begin
        User.connection.execute("SELECT 1 / 0")
      rescue ActiveRecord::StatementInvalid
        is("in a failed transaction the cache answers", store.fetch("user:22") { 22 }, 22)
      end
      raise ActiveRecord::Rollback
    end
  end
  is("... and stores nothing", redis.get("user:22"), nil)
end

test "memories" do
  store = RailsParts.store
  User.cache do
    User.find(23)
    update.call(23, "new")
    is("the query cache is cleared", store.fetch("user:23") { User.find(23).name }, "new")
  end
  store.with_local_cache do
    store.fetch("user:24") { User.find(24).name }
    update.call(24, "new")
    is("the local cache is passed by", store.fetch("user:24") { User.find(24).name }, "new")
    store.fetch("other:24") { 1 }
    redis.del("other:24")
    is("... but not for plain names", store.fetch("other:24") { flunk }, 1)
  end
  store.with_local_cache { store.read("user:25") }
  store.with_local_cache do
    is("a snapshot ends with its request", store.write("user:25", 25), false)
  end
end

test "entries" do
  store = RailsParts.store
  redis.set("user:26", "\x04\x08broken")
  is("one that can't be decoded is replaced",
     [store.fetch("user:26") { 26 }, store.fetch("user:26") { flunk }], [26, 26])
  store.fetch("user:27", expires_in: 0.05, race_condition_ttl: 10) { "old" }
  redis.persist("user:27")
  sleep 0.1
  value = store.fetch("user:27", expires_in: 50, race_condition_ttl: 10) do
    update.call(27, "x")
    "late"
  end
  is("an expired one is not revived", [value, redis.get("user:27")], ["late", nil])
  values = [store.fetch("user:26", force: true) { 27 }, store.fetch("user:26") { flunk }]
  is("force", values, [27, 27])
  user = User.find(28)
  store.fetch(user) { "first" }
  ok("a record's key", redis.exists?("users/28"))
  other.exec("ALTER TABLE rails_users DISABLE TRIGGER uncache_row")
  other.exec("UPDATE rails_users SET updated_at = now() + '1 s' WHERE id = 28")
  other.exec("ALTER TABLE rails_users ENABLE ALWAYS TRIGGER uncache_row")
  user = User.find(28)
  is("one of another version is replaced",
     [store.fetch(user) { "second" }, store.fetch(user) { flunk }], %w[second second])
  named = RailsParts.store(namespace: "app")
  named.fetch("user:29") { 29 }
  ok("a namespace", redis.exists?("app:user:29"))
  named = RailsParts.store(namespace: -> { "app" })
  is("... from a proc", named.fetch("user:29") { flunk }, 29)
end

test "the README's name of it" do
  options = { url: Servers.redis_url, fenced: ["user:"], expires_in: 60, redis_timeout_ms: 1000 }
  store = ActiveSupport::Cache.lookup_store(:uncache_store, options)
  2.times { store.fetch("user:40") { 40 } }
  is(":uncache_store, with options", [store.class.name, store.counters[:hit] >= 1],
     ["ActiveSupport::Cache::UncacheStore", true])
end

test "without" do
  raises("the fenced names must be said", ArgumentError, /fenced/) do
    ActiveSupport::Cache::UncacheStore.new(url: Servers.redis_url)
  end
  raises("... and be some", ArgumentError, /fenced/) { RailsParts.store(fenced: []) }
  raises("several servers", ArgumentError, /one address/) do
    RailsParts.store(url: %w[redis://a redis://b])
  end
  all = RailsParts.store(fenced: [""])
  all.fetch("all:1") { 1 }
  is("all names", all.counters[:plain], 0)

  events = []
  store = RailsParts.store(url: "redis://127.0.0.1:1", redis_timeout_ms: 50,
                           on_event: ->(*event) { events << event }, error_handler: nil)
  took = ms { is("without Redis", store.fetch("user:30") { 30 }, 30) }
  took += ms { 50.times { |i| store.fetch("user:30") { i } + store.fetch("other:30") { i } } }
  ok("... at once (#{took.round} ms)", took < 2000)
  told = events.any? { |event, about| event == :unfenced && about[:reason] }
  ok("... counted with the reason", told)

  User.connection.execute("ALTER EXTENSION pg_uncache DROP FUNCTION uncache.snapshot(text[])")
  User.connection.execute("ALTER FUNCTION uncache.snapshot(text[]) RENAME TO gone")
  User.connection_handler.clear_all_connections!
  User.transaction do
    store = RailsParts.store
    is("without the extension", store.fetch("user:31") { 31 }, 31)
    is("... the transaction is not harmed", User.where(id: 31).count, 1)
  end
ensure
  other.exec("ALTER FUNCTION uncache.gone(text[]) RENAME TO snapshot")
  other.exec("ALTER EXTENSION pg_uncache ADD FUNCTION uncache.snapshot(text[])")
  User.connection_handler.clear_all_connections!
end

test "a Redis that hangs" do
  store = RailsParts.store(redis_timeout_ms: 50)
  until_true { store.fetch("user:32") { 32 } && store.counters[:hit].positive? }
  store.fetch("other:32") { 32 }
  Servers.stop
  first = ms { is("... is not an error", store.fetch("user:32") { "db" }, "db") }
  rest = ms { 50.times { store.fetch("user:32") { 1 } && store.fetch("other:32") { 1 } } }
  ok("... costs one wait (#{first.round} ms), and then none (#{rest.round} ms)",
     first < 1000 && rest < 100 * 50 / 4)
  Servers.continue
  ok("... and is used again", until_true { store.fetch("user:32") { "db" } == 32 })
ensure
  Servers.continue
end
