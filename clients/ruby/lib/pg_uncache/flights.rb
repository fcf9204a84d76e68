# frozen_string_literal: true

module PgUncache
  # Threads of one process that miss the same key at once.
  #
  # A thread may only take the value of another if that one had not begun to read when the first
  # one came: a read under way can be older than a commit that the newcomer knows of.  So of each
  # key one flight is in the air and one waits at the gate; newcomers board the one at the gate.
  # A thread that flies already (a block that fetches another key) waits for nobody, since two
  # such threads could wait for each other.
  class Flights
    Flight = Struct.new(:done, :value, :error)
    Gate = Struct.new(:flying, :waiting)

    def initialize
      @lock = Mutex.new
      @change = ConditionVariable.new
      @gates = {}
    end

    # Yields in one thread at a time for each key.  Returns [value, joined]; joined is true where
    # another thread has read it.
    def fly(key, &read)
      return [yield, false] if Thread.current[:pg_uncache_flies]

      flight, mine = board(key)
      return [lead(key, flight, &read), false] if mine

      @lock.synchronize { @change.wait(@lock) until flight.done }
      # The leader was killed, or left its block: each of its passengers flies again.
      return fly(key, &read) if flight.done == :failed && flight.error.nil?
      raise flight.error if flight.error

      [flight.value, true]
    end

    private

    def board(key)
      @lock.synchronize do
        gate = (@gates[key] ||= Gate.new)
        return [gate.waiting, false] if gate.waiting

        [gate.waiting = Flight.new, true]
      end
    end

    def lead(key, flight)
      begun = false
      @lock.synchronize do
        @change.wait(@lock) while @gates[key].flying
        take_off(key, flight)
        begun = true
      end
      Thread.current[:pg_uncache_flies] = true
      value = yield
      flight.value = value
      landed = true
      value
    rescue StandardError => e
      flight.error = e
      raise
    ensure
      Thread.current[:pg_uncache_flies] = nil
      land(key, flight, begun, landed || flight.error)
    end

    def take_off(key, flight)
      gate = @gates[key]
      gate.waiting = nil
      gate.flying = flight
    end

    def land(key, flight, begun, well)
      @lock.synchronize do
        gate = @gates[key]
        begun ? gate.flying = nil : gate.waiting = nil
        @gates.delete(key) unless gate.flying || gate.waiting
        flight.done = well ? :landed : :failed
        @change.broadcast
      end
    end
  end
end
