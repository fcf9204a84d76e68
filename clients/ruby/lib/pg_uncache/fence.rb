# frozen_string_literal: true

require "json"
require "securerandom"

module PgUncache
  # Reads through the cache, with fills that Redis refuses where the reader was slower than a
  # writer.  Safe for threads, and for processes that fork.
  #
  #   fence = PgUncache::Fence.new(Redis.new, db: pool, ttl_ms: 86_400_000)
  #   user = fence.fetch("user:42") { |conn| conn.exec_params(...).first }
  #
  # Redis that is away is never an error for the caller: values come from the database then.
  # Errors of the database and of the block are the caller's.
  class Fence
    # Milliseconds that others wait for a reader that has died between its miss and its fill.
    LEASE_MS = 1000
    LEASES = (1..60_000).freeze
    JSON_DECODE = ->(bytes) { JSON.parse(bytes.dup.force_encoding(Encoding::UTF_8)) }
    JSON_ENCODE = ->(value) { JSON.generate(value) }

    attr_reader :link

    # redis: a Redis (redis-rb from 4 on), a RedisClient, a pool of these, an address, options, or
    #   a proc that makes a client.  Connections of the fence's own are made like it.
    # db: a PG::Connection, a pool of them, a proc that yields one, :active_record, or a model.
    # snapshot: instead of db, a lambda from a token to the text of uncache.snapshot(token).
    # ttl_ms: how long a value lives, in milliseconds.
    # lease_ms: how long others wait for the first reader of a key; nil: they do not.
    # redis_timeout_ms: the longest that a request waits for Redis, once in an outage.
    # shadow: the share of hits (0 to 1) that are read anew and compared.
    # encode, decode: between values and bytes; JSON by default.
    # on_event: called with the name of a counter and a hash of key and reason.
    # warn: called with the text of a warning.
    def initialize(redis, ttl_ms:, db: nil, snapshot: nil, lease_ms: LEASE_MS, redis_timeout_ms: 50,
                   shadow: 0, encode: JSON_ENCODE, decode: JSON_DECODE, on_event: nil,
                   warn: Kernel.method(:warn))
      @ttl_ms = whole(:ttl_ms, ttl_ms)
      check_options(lease_ms, redis_timeout_ms, shadow, db)
      @link = Link.new(redis, timeout_ms: redis_timeout_ms)
      @protocol = Protocol.new(@link, lease_ms: lease_ms)
      @source = Sources.for(db, snapshot)
      @encode = encode
      @decode = decode
      @counters = Counters.new(on_event: on_event, warn: warn)
      @flights = Flights.new
      @shadow = Shadow.new(shadow, @protocol, @source, @counters)
    end

    # How often each of hit, miss, stored, refused, unfenced, waited, checked and found_stale.
    def counters
      @counters.to_h
    end

    # The value of a key; on a miss the block's, which is stored.  The block is given the
    # connection on which the snapshot was taken, and reads on it, and writes nothing.
    # nil is a value like others.  A value comes as the decoder gives it, on a miss too.
    def fetch(key, ttl_ms: @ttl_ms, &load)
      through(key, load) do |found|
        fill([key], [found], ttl_ms) { |connection, _| { key => load.call(connection) } }[key]
      end
    end

    # The values of many keys, as a hash.  The block is given the missing keys and the connection,
    # and returns a hash; a key that it leaves out has the value nil.
    def fetch_many(keys, ttl_ms: @ttl_ms)
      keys = keys.uniq
      values, found = look_many(keys)
      missing = keys - values.keys
      return values if missing.empty?

      filled = fill(missing, found.values_at(*missing), ttl_ms) do |connection, needed|
        read = yield(needed, connection)
        needed.to_h { |key| [key, read[key]] }
      end
      keys.to_h { |key| [key, values.fetch(key) { filled[key] }] }
    end

    # The rows of a SELECT, as an array of hashes with values as JSON has them; on a miss the same
    # statement reads the rows and the snapshot.
    def fetch_sql(key, sql, params = [], ttl_ms: @ttl_ms)
      read = ->(connection) { select(connection, sql, params, nil).first }
      through(key, read) do |found|
        one = proc do |connection, token|
          select(connection, sql, params, token)
        end
        fill_one(key, found, ttl_ms, one)
      end
    end

    # fetch() for a block of several queries: in one transaction, which may not write, and in
    # which the snapshot comes first.
    def transaction(key, ttl_ms: @ttl_ms, &load)
      read = ->(connection) { @source.transaction(connection) { load.call(connection) } }
      through(key, read) do |found|
        one = proc do |connection, token|
          @source.transaction(connection) do
            snapshot = token && @source.snapshots(connection, [token]).first
            [load.call(connection), snapshot]
          end
        end
        fill_one(key, found, ttl_ms, one)
      end
    end

    # For what no row can name, such as page 3 of a list: the block is given a text, which stands
    # for the present state of the tags, and fetches under keys that contain it.  The tags are keys
    # with rules; when one is invalidated the text is another, and the old keys are not asked for
    # again.
    #   fence.tags(["gen:7"]) { |state| fence.fetch("list:7:#{state}:page3") { |conn| ... } }
    # Where Redis does not hold the state of all tags, nothing is stored in the block.
    def tags(tags, ttl_ms: @ttl_ms)
      raise UsageError, "tags: there must be one at least" if tags.empty?

      state = nonces(tags, ttl_ms)
      return yield(state) if state

      was_muted = Thread.current[:pg_uncache_muted]
      Thread.current[:pg_uncache_muted] = true
      begin
        yield SecureRandom.hex(16)
      ensure
        Thread.current[:pg_uncache_muted] = was_muted
      end
    end

    private

    NONCE = /\A\h{32}\z/.freeze

    # What a look into Redis has found: a value, or the reason why there is none.
    Found = Struct.new(:state, :value, :raw)

    def whole(name, number)
      return number if number.is_a?(Integer) && number.positive?

      raise ArgumentError, "#{name} must be a positive whole number of milliseconds, " \
                           "not #{number.inspect}"
    end

    def check_options(lease_ms, redis_timeout_ms, shadow, db)
      whole(:redis_timeout_ms, redis_timeout_ms)
      unless lease_ms.nil? || (lease_ms.is_a?(Integer) && LEASES.cover?(lease_ms))
        raise ArgumentError, "lease_ms must be a whole number from 1 to 60000, or nil, " \
                             "not #{lease_ms.inspect}"
      end
      unless shadow.is_a?(Numeric) && (0..1).cover?(shadow)
        raise ArgumentError, "shadow must be a share from 0 to 1, not #{shadow.inspect}"
      end
      raise UsageError, "shadow needs db:, not snapshot:" if shadow.positive? && db.nil?
    end

    # The way of every single key: a look, then one reader of this process at a time.
    def through(key, read, &fill)
      found = found_of(key, @link.call(key, "GET", key))
      return hit(key, found, read) if found.state == :hit
      return yield(found) if @source.busy? # it may hold locks that the other reader waits for

      value, joined = @flights.fly(key) { fill.call(found) }
      @counters.add(:hit, key) if joined
      joined ? decoded_copy(value) : value
    end

    def hit(key, found, read)
      @counters.add(:hit, key)
      if @shadow.due?
        @shadow.check(key, found.value, found.raw) do |connection|
          decoded_copy(read.call(connection))
        end
      end
      found.value
    end

    def found_of(_key, reply)
      return Found.new(:missing) if reply.nil?
      return Found.new(:away, reply.message) if reply.is_a?(Error)

      Found.new(:hit, @decode.call(reply.b), reply)
    rescue StandardError
      Found.new(:undecodable)
    end

    def look_many(keys)
      found = keys.zip(@link.get_all(keys)).to_h { |key, reply| [key, found_of(key, reply)] }
      values = found.select { |_, f| f.state == :hit }.transform_values(&:value)
      values.each_key { |key| @counters.add(:hit, key) }
      [values, found]
    end

    # Tickets for what was found, in one round trip for each kind.
    def tickets(keys, found)
      if Thread.current[:pg_uncache_muted]
        reason = "Redis does not hold the state of the tags"
        return keys.to_h { |key| [key, Protocol::Ticket.new(nil, nil, reason)] }
      end
      tickets = {}
      keys.zip(found).group_by { |_, f| f.state }.each do |state, pairs|
        names = pairs.map(&:first)
        got = if state == :away
                pairs.map { |_, f| Protocol::Ticket.new(nil, nil, f.value) }
              else
                @protocol.tickets(names, refresh: state == :undecodable)
              end
        names.zip(got) { |key, ticket| tickets[key] = ticket }
      end
      tickets
    end

    # Read what is missing, and store it.
    def fill(keys, found, ttl_ms)
      tickets = tickets(keys, found)
      values = hits_of(tickets)
      needed = keys - values.keys
      return values if needed.empty?

      ended = false
      @source.checkout do |connection|
        tokens = needed.map { |key| tickets[key].token }
        snapshots = needed.zip(@source.snapshots(connection, tokens)).to_h
        read = yield(connection, needed)
        unsure(connection, tickets, snapshots)
        ended = true
        values.merge(store(read, tickets, snapshots, ttl_ms))
      end
    ensure
      @protocol.release(tickets.slice(*needed)) if needed && !ended
    end

    # The same for a reader that takes the snapshot by itself, in its statement or transaction.
    def fill_one(key, found, ttl_ms, read)
      tickets = tickets([key], [found])
      values = hits_of(tickets)
      return values[key] if values.key?(key)

      ended = false
      @source.checkout do |connection|
        value, snapshot = read.call(connection, tickets[key].token)
        snapshots = { key => snapshot }
        unsure(connection, tickets, snapshots)
        ended = true
        store({ key => value }, tickets, snapshots, ttl_ms)[key]
      end
    ensure
      @protocol.release(tickets) if ended == false
    end

    # Another reader was faster.  A value that can't be decoded is read without storing.
    def hits_of(tickets)
      tickets.each_with_object({}) do |(key, ticket), values|
        @counters.add(:waited, key) if ticket.waited
        next @counters.add(:miss, key) unless ticket.hit?

        found = found_of(key, ticket.value)
        next @counters.add(:miss, key) unless found.state == :hit

        @counters.add(:hit, key)
        values[key] = found.value
      end
    end

    # In a transaction of the application's: has it written?  Then what it reads is not for all.
    def unsure(connection, tickets, snapshots)
      return unless @source.in_transaction?(connection)

      tokens = snapshots.keys.map { |key| tickets[key].token }
      snapshots.keys.zip(@source.snapshots(connection, tokens)) do |key, again|
        snapshots[key] = nil if again.nil?
      end
    end

    def store(values, tickets, snapshots, ttl_ms)
      bytes = values.to_h { |key, value| [key, encoded(key, value)] }
      fills = values.keys.map do |key|
        [key, tickets[key], bytes[key] && snapshots[key], ttl_ms, bytes[key]]
      end
      outcomes = @protocol.store(fills)
      fills.each { |fill| count(fill, outcomes[fill[0]]) }
      values.to_h { |key, value| [key, bytes[key] ? @decode.call(bytes[key].b) : value] }
    end

    # A value without encoding, and a reader that has waited, have been counted.
    def count((key, ticket, snapshot, _, bytes), outcome)
      return if bytes.nil? || (ticket.token.nil? && ticket.wait_ms)

      reason = if ticket.token.nil? then ticket.reason
               elsif snapshot.nil? then "the snapshot is NULL: the transaction has written, or " \
                                        "fence_ttl is 0"
               elsif outcome.is_a?(String) then outcome
               end
      @counters.add(reason ? :unfenced : outcome, key, reason: reason)
    end

    # nil where the value has no encoding; it is served, and not stored.
    def encoded(key, value)
      @encode.call(value)
    rescue StandardError => e
      @counters.add(:unfenced, key, reason: "the value can't be encoded: #{e.message}")
      nil
    end

    # A hit and a miss look the same to the caller, and two callers never share an object.
    def decoded_copy(value)
      @decode.call(@encode.call(value).b)
    rescue StandardError
      value
    end

    # [rows, snapshot]
    def select(connection, sql, params, token)
      text = "SELECT uncache.snapshot($#{params.size + 1}::text) AS snapshot, " \
             "(SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM (#{sql}) q)::text AS rows"
      row = @source.rows(connection, text, params + [token]).first
      [JSON.parse(row["rows"]), row["snapshot"]]
    end

    # The nonces of the tags in one text, or nil.  Each was there, or Redis has stored it: what is
    # read afterwards is not older than they are.
    def nonces(tags, ttl_ms)
      replies = @link.get_all(tags)
      missing = tags.zip(replies).select { |_, reply| reply.nil? }.map(&:first)
      made = missing.empty? ? {} : fill_nonces(missing, ttl_ms)
      texts = tags.zip(replies).map { |tag, reply| reply.nil? ? made[tag] : reply }
      texts.join(".") if texts.all? { |text| text.is_a?(String) && text.match?(NONCE) }
    end

    def fill_nonces(tags, ttl_ms)
      tickets = tags.zip(@protocol.tickets(tags)).to_h
      nonces = tickets.select { |_, ticket| ticket.hit? }.transform_values(&:value)
      fillable = tickets.keys.select { |tag| tickets[tag].token }
      return nonces if fillable.empty?

      fresh = fillable.to_h { |tag| [tag, SecureRandom.hex(16)] }
      snapshots = @source.checkout do |connection|
        @source.snapshots(connection, fillable.map { |tag| tickets[tag].token })
      end
      fills = fillable.zip(snapshots).map do |tag, snapshot|
        [tag, tickets[tag], snapshot, ttl_ms, fresh[tag]]
      end
      nonces.merge(fresh.slice(*@protocol.store(fills).select { |_, o| o == :stored }.keys))
    end
  end
end
