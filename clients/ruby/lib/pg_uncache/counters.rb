# frozen_string_literal: true

module PgUncache
  # What became of reads and fills, and the one warning where fills go unfenced for a minute.
  class Counters
    NAMES = %i[hit miss stored refused unfenced waited plain checked found_stale].freeze
    # Shorter spells are a failover, or functions that are being loaded.
    WARN_SECONDS = 60

    # clock: seconds, for tests.
    def initialize(on_event: nil, warn: Kernel.method(:warn),
                   clock: -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) })
      @lock = Mutex.new
      @counts = NAMES.to_h { |name| [name, 0] }
      @on_event = on_event
      @warn = warn
      @clock = clock
      @unfenced_since = nil
      @warned = false
    end

    def add(name, key, number: 1, reason: nil)
      return if number.zero?

      @lock.synchronize { @counts[name] += number }
      fenced_again if %i[stored refused].include?(name)
      unfenced(reason) if name == :unfenced
      tell(name, key, reason)
    end

    def to_h
      @lock.synchronize { @counts.dup }
    end

    private

    # The application's callback must not break a read.
    def tell(name, key, reason)
      @on_event&.call(name, { key: key, reason: reason }.compact)
    rescue StandardError => e
      @warn.call("pg_uncache: on_event failed: #{e.class}: #{e.message}") unless @told
      @told = true
    end

    def fenced_again
      @unfenced_since = nil
      @warned = false
    end

    def unfenced(reason)
      now = @clock.call
      @unfenced_since ||= now
      return if @warned || now - @unfenced_since < WARN_SECONDS

      @warned = true
      @warn.call("pg_uncache: no value could be stored for a minute (#{reason}); " \
                 "SELECT state, fence, last_error FROM uncache.stat says more")
    end
  end
end
