# frozen_string_literal: true

module PgUncache
  # The shadow check: a share of the hits is read anew from the database and compared.
  #
  # A difference alone says nothing, since the row may have changed a moment ago.  The hit counts
  # as stale if the same value is still there after all that had been committed is delivered, and
  # again so after a second reading.  Only fresh snapshots are compared: what a lagging standby or
  # an old REPEATABLE READ reads may be older than the cache.
  class Shadow
    # Checks that are reported together, and the longest they wait for that, in seconds.
    REPORT_EVERY = 100
    REPORT_SECONDS = 10

    def initialize(share, protocol, source, counters)
      @share = share
      @protocol = protocol
      @source = source
      @counters = counters
      @lock = Mutex.new
      @pending = [0, 0]
      @reported = now
    end

    def due?
      @share.positive? && rand < @share
    end

    # value: what was found; raw: its bytes.  The block reads anew, and returns a value that
    # compares like the one found.
    def check(key, value, raw, &read)
      @source.checkout do |connection|
        next unless fresh?(connection, key)

        stale = 2.times.all? { suspicious?(connection, key, value, raw, &read) }
        @counters.add(:checked, key)
        @counters.add(:found_stale, key) if stale
        note(stale)
      end
    end

    private

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # The fourth part of a snapshot says so.
    def fresh?(connection, key)
      ticket = @protocol.ticket(key, lease: false, refresh: true)
      return false unless ticket.token && !@source.in_transaction?(connection)

      @source.snapshots(connection, [ticket.token]).first.to_s.split(":")[3] == "1"
    end

    def suspicious?(connection, key, value, raw)
      return false if yield(connection) == value
      return false unless @source.delivered?(connection)

      again = @protocol.link.call(key, "GET", key)
      again.is_a?(String) && again.b == raw.b
    end

    def note(stale)
      due = @lock.synchronize do
        @pending[0] += 1
        @pending[1] += 1 if stale
        next unless stale || @pending[0] >= REPORT_EVERY || now - @reported >= REPORT_SECONDS

        @reported = now
        @pending.dup.tap { @pending = [0, 0] }
      end
      report(*due) if due
    end

    # A server whose functions can't count them yet answers with an error; nothing is lost by it.
    def report(checked, stale)
      @protocol.link.call("", "FCALL", "uncache_report", 0, "checked", checked, "stale", stale)
    end
  end
end
