# frozen_string_literal: true

require "active_support"
require "active_support/cache"
require "active_support/cache/redis_cache_store"
require "pg_uncache"
require "pg_uncache/rails/memory"
require "pg_uncache/rails/transaction_watch"

module ActiveSupport
  module Cache
    # RedisCacheStore with fenced fills, for application code as it is:
    #
    #   config.cache_store = :uncache_store, { url: ENV["REDIS_URL"], fenced: ["users/", "views/"] }
    #
    # On a miss read_entry takes a snapshot on the request's own database connection, clears
    # ActiveRecord's query cache, and remembers the snapshot; write_entry presents it, after it has
    # asked whether the transaction has written meanwhile.  So fetch, fetch_multi, and read or
    # read_multi followed by write, are fenced; a write without a miss before it stores nothing.
    #
    # Names that begin with none of `fenced` are stored as RedisCacheStore does, and counted.
    # What the block reads it must read now: a record that was loaded before the miss may be older
    # than the snapshot, and nothing can tell.
    class UncacheStore < RedisCacheStore
      # Seconds that an entry lives where neither the call nor the store says so.
      DEFAULT_EXPIRES_IN = 86_400

      def self.supports_cache_versioning?
        true
      end

      # fenced: the beginnings of the names whose keys have rules, without the namespace; [""]
      #   stands for all.  database: a model, where it is not ActiveRecord::Base.
      # lease_ms, redis_timeout_ms, on_event: as of PgUncache::Fence.
      # All else is RedisCacheStore's.
      def initialize(fenced:, database: nil, lease_ms: PgUncache::Fence::LEASE_MS,
                     redis_timeout_ms: 50, on_event: nil, **options)
        @fenced = Array(fenced).map(&:to_s).freeze
        raise ArgumentError, "fenced: names no key; [\"\"] stands for all" if @fenced.empty?
        raise ArgumentError, "url: takes one address, Sentinels or a Cluster" if
          Array(options[:url]).size > 1

        seconds = redis_timeout_ms / 1000.0
        super(**{ connect_timeout: seconds, read_timeout: seconds, write_timeout: seconds }
                  .merge(options))
        @link = PgUncache::Link.new(-> { redis.with { |client| client } },
                                    timeout_ms: redis_timeout_ms)
        @protocol = PgUncache::Protocol.new(@link, lease_ms: lease_ms)
        @source = PgUncache::Sources::Records.new(database)
        @counters = PgUncache::Counters.new(on_event: on_event, warn: method(:warn_unfenced))
        @memory = PgUncache::Rails::Memory.new
      end

      # How often each of hit, miss, stored, refused, unfenced, waited and plain.
      def counters
        @counters.to_h
      end

      def fetch(name, options = nil, &block)
        merged = merged_options(options)
        key = normalize_key(name, merged)
        return super unless block && fenced?(key, merged)

        within_fetch(key => version_of(name, merged)) do
          missed([key], refresh: true, namespace: merged[:namespace]) if merged[:force]
          super
        end
      end

      def fetch_multi(*names, &block)
        options = merged_options(names.last.is_a?(Hash) ? names.last : nil)
        list = names.last.is_a?(Hash) ? names[0..-2] : names
        keys = list.to_h { |name| [normalize_key(name, options), version_of(name, options)] }
        within_fetch(keys) do
          missed(keys.keys.select { |key| fenced?(key, options) }, refresh: true) if options[:force]
          super
        end
      end

      # RedisCacheStore 6 asks Redis here, later ones in read_multi_entries.
      def read_multi(*names)
        Store.instance_method(:read_multi).bind_call(self, *names)
      end

      private

      def warn_unfenced(text)
        logger ? logger.warn(text) : Kernel.warn(text)
      end

      def fenced?(key, options)
        name = name_of(key, options)
        @fenced.any? { |beginning| name.start_with?(beginning) }
      end

      # The key without the namespace.
      def name_of(key, options)
        namespace = options[:namespace]
        namespace = namespace.call if namespace.respond_to?(:call)
        key.b.delete_prefix(namespace ? "#{namespace}:".b : "")
      end

      def version_of(name, options)
        normalize_version(name, options)
      end

      # Inside a fetch the versions that are asked for are known, and a lease is taken, which ends
      # with it.
      def within_fetch(versions)
        @memory.begin_fetch(versions)
        yield
      ensure
        @protocol.release(@memory.end_fetch(versions.keys))
      end

      # ---- reading

      def read_entry(key, **options)
        unless fenced?(key, options)
          @counters.add(:plain, key)
          return super
        end
        entry, state = found(key, @link.call(key, "GET", key), options)
        return counted_hit(key, entry) if state == :hit

        missed([key], refresh: state == :unusable, options: options, away: state == :away)[key]
      end

      def read_multi_entries(names, **options)
        keys = names.to_h { |name| [name, normalize_key(name, options)] }
        fenced, plain = names.partition { |name| fenced?(keys[name], options) }
        values = plain.empty? ? {} : super(plain, **options)
        @counters.add(:plain, nil, number: plain.size)
        values.merge(read_fenced(fenced, keys, options))
      end

      def read_fenced(names, keys, options)
        return {} if names.empty?

        @memory.expect(names.to_h { |name| [keys[name], version_of(name, options)] }) do
          replies = @link.get_all(names.map { |name| keys[name] })
          found = names.zip(replies).map { |n, reply| [n, *found(keys[n], reply, options)] }
          found.select { |_, _, state| state == :hit }.each { |n, _, _| counted_hit(keys[n], nil) }
          values = found.select { |_, _, s| s == :hit }.to_h { |n, entry, _| [n, entry.value] }
          values.merge(read_missed(found, keys, options))
        end
      end

      def read_missed(found, keys, options)
        values = {}
        found.reject { |_, _, state| state == :hit }.group_by(&:last).each do |state, of|
          entries = missed(of.map { |name, _, _| keys[name] }, refresh: state == :unusable,
                           options: options, away: state == :away)
          of.each { |name, _, _| (entry = entries[keys[name]]) && values[name] = entry.value }
        end
        values
      end

      # The entry, and whether it may be served.  What can't be decoded, has expired or is of
      # another version is to be replaced.
      def found(key, reply, options)
        return [nil, :missing] if reply.nil?
        return [nil, :away] if reply.is_a?(PgUncache::Error)

        entry = deserialize_entry(reply.b, raw: options[:raw])
        usable = entry && !entry.expired? && !entry.mismatched?(@memory.version(key))
        [entry, usable ? :hit : :unusable]
      rescue StandardError
        [nil, :unusable]
      end

      def counted_hit(key, entry)
        @counters.add(:hit, key)
        entry
      end

      # Tokens and snapshots for missed keys, which are remembered.  Returns the entries of those
      # that another reader has filled meanwhile.
      def missed(keys, refresh: false, options: {}, away: false, **)
        return {} if keys.empty?

        keys.each { |key| @memory.forget(key) }
        tickets = tickets(keys, refresh, away)
        entries = tickets.select { |_, ticket| ticket.hit? }
        entries = entries.to_h { |key, ticket| [key, found(key, ticket.value, options)] }
        entries = entries.select { |_, (_, state)| state == :hit }.transform_values(&:first)
        count_looks(keys, tickets, entries)
        remember(tickets.reject { |key, _| entries.key?(key) })
        entries
      end

      def tickets(keys, refresh, away)
        none = PgUncache::Protocol::Ticket.new(nil, nil, "Redis does not answer")
        return keys.to_h { |key| [key, none] } if away

        lease = @memory.in_fetch?(keys)
        keys.zip(@protocol.tickets(keys, lease: lease, refresh: refresh)).to_h
      end

      def count_looks(keys, tickets, entries)
        keys.each do |key|
          @counters.add(:waited, key) if tickets[key].waited
          @counters.add(entries.key?(key) ? :hit : :miss, key)
        end
      end

      def remember(tickets)
        return if tickets.empty?

        connection = watched_connection if tickets.each_value.any?(&:token)
        moment = connection && PgUncache::Rails::TransactionWatch.moment(connection)
        texts = moment ? @source.snapshots(connection, tickets.values.map(&:token)) : []
        tickets.each_with_index do |(key, ticket), i|
          @memory.remember(key, ticket, texts[i], moment, request)
        end
      end

      # nil where there is no extension: the query would end the application's transaction.
      def watched_connection
        connection = @source.connection
        PgUncache::Rails::TransactionWatch.extend_over(connection, @memory)
      end

      # The local cache lives as long as a request.
      def request
        local_cache
      end

      # ---- writing

      def write_entry(key, entry, **options)
        return super unless fenced?(key, options)

        write_fenced({ key => entry }, options)
      end

      def write_multi_entries(entries, **options)
        fenced, plain = entries.partition { |key, _| fenced?(key, options) }.map(&:to_h)
        super(plain, **options) unless plain.empty?
        write_fenced(fenced, options) unless fenced.empty?
      end

      # True if all are stored.
      def write_fenced(entries, options)
        known = entries.keys.to_h { |key| [key, @memory.take(key, request)] }
        proven = proven(known.select { |_, memo| memo&.snapshot })
        fills = known.compact.map do |key, memo|
          bytes = proven[key] && bytes_of(entries[key], options)
          [key, memo.ticket, proven[key], ttl_ms(entries[key]), bytes]
        end
        outcomes = @protocol.store(fills)
        entries.each_key { |key| count_fill(key, known[key], proven[key], outcomes[key]) }
        entries.keys.all? { |key| outcomes[key] == :stored }
      end

      # The snapshots of those that may be stored still: taken in this transaction, or in none,
      # and this one has not written.
      def proven(known)
        return {} if known.empty?

        connection = watched_connection
        moment = connection && PgUncache::Rails::TransactionWatch.moment(connection)
        same = known.select { |_, memo| memo.moment.may_end_at?(moment) }
        again = @source.snapshots(connection, same.values.map { |memo| memo.ticket.token })
        same.keys.zip(again).select(&:last).to_h { |key, _| [key, same[key].snapshot] }
      end

      def count_fill(key, memo, proven, outcome)
        return if memo&.ticket&.wait_ms # it has been counted as waited

        reason = if memo.nil? then "no miss came before the write, or a transaction has written"
                 elsif memo.ticket.token.nil? then memo.ticket.reason
                 elsif proven.nil? then "uncache.snapshot() is NULL or missing"
                 elsif outcome.is_a?(String) then outcome
                 end
        @counters.add(reason ? :unfenced : outcome, key, reason: reason)
      end

      def ttl_ms(entry)
        seconds = entry.expires_at ? entry.expires_at - Time.now.to_f : DEFAULT_EXPIRES_IN
        [(seconds * 1000).ceil, 1].max
      end

      def bytes_of(entry, options)
        keywords = method(:serialize_entry).parameters.any? { |kind, _| kind == :keyrest }
        return serialize_entry(entry, raw: options[:raw]) unless keywords

        serialize_entry(entry, raw: options[:raw], **options.except(:raw))
      end

      # ---- Redis that is away, for what is stored plainly

      def failsafe(method, returning: nil)
        return returning if @link.away?

        super(method, returning: returning) do
          yield
        rescue ::Redis::BaseConnectionError => e
          @link.suspect(e)
          raise
        end
      end
    end
  end
end
