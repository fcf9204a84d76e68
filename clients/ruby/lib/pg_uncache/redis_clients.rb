# frozen_string_literal: true

module PgUncache
  # The Redis libraries, behind one small interface: call_all(commands, keys) gives the replies
  # of commands that belong to one node, with a ServerError where Redis answered with an error,
  # and raises Closed or Hung; place_of(key) names the node of a key where there are several;
  # limit(seconds) bounds the next call; close.
  #
  # redis-rb 4, 5 and 6, their clusters, and redis-client are served.  A connection here is never
  # the application's own: it is made from the same options, with other timeouts, since those of
  # an application's client may be seconds.
  module RedisClients
    # Making a connection happens in a thread of its own, which no request waits for longer than
    # the timeout, so that it may take longer than that on a slow network.
    CONNECT_SECONDS = 1.0

    module_function

    # A lambda that makes a connection like the given one.
    def connector(redis, seconds)
      case redis
      when Proc then -> { connector_like(redis.call, seconds).call }
      when String then redis_rb(require_redis, { url: redis }, seconds)
      when Hash then redis_rb(require_redis, redis, seconds)
      else connector_like(redis, seconds)
      end
    end

    def connector_like(redis, seconds)
      if distributed?(redis)
        raise UsageError, "Redis::Distributed chooses servers in a way that pg_uncache can't " \
                          "follow; use one server, Sentinel or Redis Cluster"
      elsif defined?(::Redis) && redis.is_a?(::Redis)
        redis_rb(redis.class, redis.instance_variable_get(:@options), seconds)
      elsif redis.respond_to?(:config) && redis.config.respond_to?(:new_client)
        config = redis.config
        -> { Modern.new(patient(config.new_client, seconds)) }
      elsif redis.respond_to?(:with) # a pool
        redis.with { |client| connector_like(client, seconds) }
      else
        raise UsageError, "redis must be a Redis, a RedisClient, a pool of these, an address, " \
                          "options or a proc that makes a client, not #{redis.class}"
      end
    end

    def require_redis
      require "redis"
      ::Redis
    end

    def distributed?(redis)
      defined?(::Redis::Distributed) && redis.is_a?(::Redis::Distributed)
    end

    def redis_rb(type, options, seconds)
      options = options.merge(connect_timeout: [seconds, CONNECT_SECONDS].max, timeout: seconds,
                              read_timeout: seconds, write_timeout: seconds, reconnect_attempts: 0)
      -> { wrap(type.new(options)) }
    end

    def patient(client, seconds)
      client.connect_timeout = [seconds, CONNECT_SECONDS].max
      client.read_timeout = client.write_timeout = seconds
      client
    end

    def wrap(redis)
      return Modern.new(redis) unless defined?(::Redis) && redis.is_a?(::Redis)

      client = redis._client
      if !client.respond_to?(:call_v) # redis-rb 4
        client.is_a?(::Redis::Client) ? Four.new(client) : FourCluster.new(client)
      elsif client.respond_to?(:read_timeout=)
        Modern.new(client)
      else
        ModernCluster.new(client)
      end
    end

    # Strings as bytes: a command may hold text beside binary values.
    def bytes(command)
      command.map { |argument| argument.to_s.b }
    end

    # redis-rb 4: one server, or Sentinel.
    class Four
      def initialize(client)
        @client = client
      end

      def ping
        call_all([["PING"]], [nil])
      end

      def place_of(_key) = nil

      def cluster? = false

      def limit(seconds)
        @client.connection.timeout = seconds if @client.connected?
      end

      def call_all(commands, _keys)
        Four.ask(@client, commands)
      end

      def close
        @client.disconnect
      rescue StandardError
        nil
      end

      # process() with read() gives an error among the replies; a pipeline would raise it.
      def self.ask(client, commands)
        commands = commands.map { |command| RedisClients.bytes(command) }
        replies = client.process(commands) { commands.map { client.read } }
        replies.map do |reply|
          reply.is_a?(::Redis::CommandError) ? ServerError.new(reply.message) : reply
        end
      rescue ::Redis::TimeoutError => e
        raise Hung, e.message
      rescue ::Redis::BaseError, SystemCallError, IOError, SocketError => e
        raise Closed, "#{e.class}: #{e.message}"
      end
    end

    # redis-rb 4 with `cluster:`.  It finds no key in FCALL, so the node is looked up as GET's.
    class FourCluster < Four
      def ping = nil

      def cluster? = true

      def place_of(key)
        @client.send(:find_node_key, ["get", key], primary_only: true)
      end

      def limit(_seconds) = nil

      def call_all(commands, keys)
        node = @client.send(:find_node, place_of(keys.first))
        Four.ask(node, commands).each_with_index.map do |reply, i|
          moved?(reply) ? follow(commands[i]) : reply
        end
      end

      private

      def moved?(reply)
        reply.is_a?(ServerError) && reply.message.start_with?("MOVED", "ASK")
      end

      def follow(command)
        @client.call(RedisClients.bytes(command))
      rescue ::Redis::CommandError => e
        ServerError.new(e.message)
      rescue ::Redis::BaseError => e
        raise Closed, e.message
      end
    end

    # redis-rb from 5 on, and redis-client.
    class Modern
      def initialize(client)
        @client = client
      end

      def ping
        call_all([["PING"]], [nil])
      end

      def place_of(_key) = nil

      def cluster? = false

      def limit(seconds)
        @client.read_timeout = @client.write_timeout = seconds
      end

      def call_all(commands, _keys)
        replies = @client.pipelined(exception: false) do |pipeline|
          commands.each { |command| pipeline.call_v(RedisClients.bytes(command)) }
        end
        replies.map { |reply| answer(reply) }
      rescue StandardError => e
        raise translated(e)
      end

      def close
        @client.close
      rescue StandardError
        nil
      end

      private

      def answer(reply)
        return reply unless reply.is_a?(::RedisClient::Error)
        raise reply unless reply.is_a?(::RedisClient::CommandError)

        ServerError.new(reply.message)
      end

      def translated(error)
        name = error.class.ancestors.map(&:to_s)
        return Hung.new(error.message) if name.any? { |n| n.end_with?("TimeoutError") }

        Closed.new("#{error.class}: #{error.message}")
      end
    end

    # redis-rb from 5 on with redis-clustering.  It splits a pipeline by nodes and follows
    # redirections itself.
    class ModernCluster < Modern
      # Loads the map of the cluster.
      def ping
        place_of("ping")
      rescue StandardError => e
        raise translated(e)
      end

      def cluster? = true

      def limit(_seconds) = nil

      # The library has no public way to ask, so the slot stands for its node where that fails.
      def place_of(key)
        @client.send(:router).find_node_key_by_key(key, primary: true)
      rescue NoMethodError
        ::RedisClient::Cluster::KeySlotConverter.convert(key)
      end
    end
  end
end
