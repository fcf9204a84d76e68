# frozen_string_literal: true

module PgUncache
  # A Redis that may be away.
  #
  # Every thread that asks has a connection of its own for that moment, out of a stock that grows
  # as needed, so that no request waits behind another.  A request that finds Redis hanging or
  # gone waits once, for the timeout at most.  From then on nobody asks, and a thread in the
  # background looks until Redis answers.  In a Cluster that is so for each node; a connection is
  # then one to the whole Cluster, and is kept when one node is lost.
  #
  # A connection that the server has closed (a restart, an idle timeout) says nothing about the
  # server: it is asked once more, over a new one.
  #
  # After a fork the child begins with an empty stock.
  class Link
    # Connections that are kept; those beyond it, from a burst of threads, are closed.
    MAX_IDLE = 32
    # Seconds between two looks whether Redis is back: short first, for a restart.
    PAUSES = [0.05, 0.1, 0.2, 0.5, 1.0].freeze

    attr_reader :last_error

    def initialize(redis, timeout_ms:)
      @timeout = timeout_ms / 1000.0
      @connect = RedisClients.connector(redis, @timeout)
      @lock = Mutex.new
      begin_anew
    end

    # The reply of one command about one key: what Redis says, a ServerError, or an Away.
    def call(key, *command)
      call_all([command], [key]).first
    end

    # The same for many, in one round trip a node.
    def call_all(commands, keys)
      begin_anew if @pid != Process.pid
      deadline = now + @timeout
      connection, used = take(deadline)
      return lost(:connect, keys, connection) if connection.is_a?(Away)
      return ask(:server, commands, keys, deadline, connection, used) unless connection.cluster?

      ask_cluster(commands, keys, deadline, connection)
    end

    # The values of keys, nil where there is none.
    def get_all(keys)
      return call_all(keys.map { |key| ["GET", key] }, keys) if keys.size < 2 || cluster?

      reply = call(keys.first, "MGET", *keys)
      reply.is_a?(Array) ? reply : keys.map { reply }
    end

    def away?
      @away.key?(:server) || @away.key?(:connect)
    end

    # Somebody else has found Redis away.
    def suspect(error)
      close(:server, nil, error)
    end

    private

    def begin_anew
      @lock.synchronize do
        @pid = Process.pid
        @idle = []
        # What is not asked: a place (the server, or a node), or :connect, where no connection can
        # be made.
        @away = {}
      end
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def cluster?
      connection, = take(now + @timeout)
      return false if connection.is_a?(Away)

      put(connection)
      connection.cluster?
    end

    def ask_cluster(commands, keys, deadline, connection)
      groups = keys.each_index.group_by { |i| connection.place_of(keys[i]) }
      put(connection)
      replies = Array.new(commands.size)
      groups.each do |place, numbers|
        connection, used = take(deadline)
        part = ask(place, commands.values_at(*numbers), keys.values_at(*numbers), deadline,
                   connection, used)
        numbers.zip(part) { |number, reply| replies[number] = reply }
      end
      replies
    end

    def ask(place, commands, keys, deadline, connection, used)
      return lost(:connect, keys, connection) if connection.is_a?(Away)
      return refuse(keys, connection) if @away.key?(place)

      connection.limit([deadline - now, 0.001].max)
      replies = connection.call_all(commands, keys)
      put(connection)
      replies
    rescue Away => e
      connection.cluster? ? put(connection) : connection.close
      return lost(place, keys, e) unless e.is_a?(Closed) && used

      drop_idle unless connection.cluster?
      ask(place, commands, keys, deadline, take(deadline).first, false)
    rescue Exception # raised into this thread: a reply may be under way
      connection.close
      raise
    end

    # This place was found away meanwhile.
    def refuse(keys, connection)
      put(connection)
      Array.new(keys.size, Away.new("waiting for Redis"))
    end

    def lost(place, keys, error)
      close(place, keys.first, error)
      Array.new(keys.size, error)
    end

    # A connection, or an Away, and whether it has been used before.
    def take(deadline)
      connection = @lock.synchronize { @idle.pop }
      connection ? [connection, true] : [connect(deadline), false]
    end

    def put(connection)
      kept = @lock.synchronize { @idle.size < MAX_IDLE && @idle.push(connection) }
      connection.close unless kept
    end

    def drop_idle
      @lock.synchronize { @idle.slice!(0..) }.each(&:close)
    end

    # In a thread, since nothing else bounds the resolving of a name, TLS and AUTH together.
    def connect(deadline)
      return Away.new("waiting for Redis") if away?

      maker = Thread.new { make }
      maker.report_on_exception = false
      return maker.value if maker.join([deadline - now, 0.001].max)

      Hung.new("no connection to Redis in time")
    rescue Away => e
      e
    end

    def make
      connection = @connect.call
      connection.ping
      connection
    rescue Away
      raise
    rescue StandardError => e # wrong password, unknown name: as the library has it
      raise Closed, "#{e.class}: #{e.message}"
    end

    # Nobody asks this place any more, until it answers.
    def close(place, key, error)
      @lock.synchronize do
        return if @away.key?(place) || @away.key?(:server)

        @away[place] = true
        @last_error = error.message
      end
      drop_idle if place == :server
      pid = @pid
      Thread.new { look_until_back(place, key, pid) }.report_on_exception = false
    end

    def look_until_back(place, key, pid)
      pauses = PAUSES.each
      loop do
        sleep(next_pause(pauses))
        return if pid != Process.pid

        connection = answers(key)
        next unless connection

        drop_idle # in a Cluster they have the map of before
        put(connection)
        @lock.synchronize { @away.delete(place) }
        return
      end
    end

    def next_pause(pauses)
      pauses.next
    rescue StopIteration
      PAUSES.last
    end

    # In a Cluster the node is asked for the key that found it away, wherever that is now.
    def answers(key)
      connection = make
      connection.call_all([["EXISTS", key]], [key]) if key && connection.cluster?
      connection
    rescue StandardError
      connection&.close
      nil
    end
  end
end
