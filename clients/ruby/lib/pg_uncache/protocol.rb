# frozen_string_literal: true

module PgUncache
  # The functions in Redis, for the fence and for the stores: tokens with leases, and fills.
  class Protocol
    # A server without leases is asked for them again after so many seconds.
    LEASE_PAUSE = 60
    # Milliseconds between two looks while another reader fills the key.
    POLL_MS = (10..50).freeze

    # What is known of a key: a value that is cached, or a token to fill it with, or neither, with
    # the reason.  leased: others wait for this reader; wait_ms: this one is to wait for another;
    # waited: it has.
    Ticket = Struct.new(:value, :token, :reason, :leased, :wait_ms, :waited) do
      def hit? = !value.nil?
    end

    attr_reader :link

    def initialize(link, lease_ms: nil)
      @link = link
      @lease_ms = lease_ms
      @no_lease_until = 0
    end

    # The ticket of a missed key; refresh: for a value that is there and is to be replaced.
    def ticket(key, lease: true, refresh: false)
      tickets([key], lease: lease, refresh: refresh).first
    end

    # The tickets of many keys in one round trip, and in more while other readers fill them.
    def tickets(keys, lease: true, refresh: false)
      tickets = ask(keys, lease ? lease_ms : nil, refresh)
      wait(keys, tickets, refresh) if tickets.any?(&:wait_ms)
      tickets
    end

    # fills: [key, ticket, snapshot or nil, ttl_ms, bytes].  Returns an outcome for each key:
    # :stored, :refused, or why not, in words.  Where the snapshot is nil nothing is stored; the
    # token in its place ends the lease.
    def store(fills)
      fills = fills.select { |_, ticket, snapshot| ticket.token && (snapshot || ticket.leased) }
      return {} if fills.empty?

      commands = fills.map do |key, ticket, snapshot, ttl_ms, bytes|
        ["FCALL", "uncache_set", 1, key, snapshot || ticket.token, ttl_ms, snapshot ? bytes : ""]
      end
      keys = fills.map(&:first)
      keys.zip(@link.call_all(commands, keys)).to_h { |key, reply| [key, outcome(reply)] }
    end

    # Readers that have failed, or read nothing: others need not wait for the end of their leases.
    def release(tickets)
      store(tickets.map { |key, ticket| [key, ticket, nil, 1, ""] })
    end

    private

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    def outcome(reply)
      return reply.message if reply.is_a?(Error)

      reply == 1 ? :stored : :refused
    end

    def lease_ms
      @lease_ms if @lease_ms && now >= @no_lease_until
    end

    def ask(keys, lease, refresh)
      name = refresh ? "uncache_token" : "uncache_get"
      replies = @link.call_all(keys.map { |key| ["FCALL", name, 1, key, *lease] }, keys)
      if lease && replies.any? { |reply| without_lease?(reply) }
        @no_lease_until = now + LEASE_PAUSE
        return ask(keys, nil, refresh)
      end
      replies.map { |reply| ticket_of(reply, lease, refresh) }
    end

    # An older library of functions takes no lease.
    def without_lease?(reply)
      reply.is_a?(ServerError) && reply.message.match?(/\AERR uncache_\w+: takes /)
    end

    def ticket_of(reply, lease, refresh)
      return Ticket.new(nil, nil, reply.message) if reply.is_a?(Error)

      value, token, wait_ms = refresh && !reply.is_a?(Array) ? [nil, reply] : reply
      return Ticket.new(value) if value
      return Ticket.new(nil, nil, "another reader fills the key", nil, wait_ms) if wait_ms

      Ticket.new(nil, token, token ? nil : "the fence is off, or has no epoch yet", !lease.nil?)
    end

    # Others fill: look again until a value is there, or a token, or the time is over.
    def wait(keys, tickets, refresh)
      deadline = now + [tickets.filter_map(&:wait_ms).max, @lease_ms].min / 1000.0
      pause = POLL_MS.begin
      while (open = tickets.each_index.select { |i| tickets[i].wait_ms }).any? && now < deadline
        sleep([pause / 1000.0, deadline - now].min.clamp(0, nil))
        pause = [pause * 1.5, POLL_MS.end].min
        ask(keys.values_at(*open), @lease_ms, refresh).zip(open) { |ticket, i| tickets[i] = ticket }
        tickets.values_at(*open).each { |ticket| ticket.waited = true }
      end
    end
  end
end
