# frozen_string_literal: true

module PgUncache
  module Rails
    # What a thread remembers between a miss and the write that follows it: the token, the snapshot,
    # and the transaction in which it was taken.  A write takes it out.  It ends with the request
    # (whose local cache is another then), and where there is none, after a minute.
    class Memory
      # Misses that nobody has filled; the oldest are forgotten.
      MAX = 1000
      SECONDS = 60

      Memo = Struct.new(:ticket, :snapshot, :moment, :request, :time)
      State = Struct.new(:memos, :versions, :fetches)

      def initialize
        @name = :"pg_uncache_memory_#{object_id}"
      end

      def remember(key, ticket, snapshot, moment, request)
        memos = state.memos
        memos.delete(memos.keys.first) if memos.size >= MAX
        memos[key] = Memo.new(ticket, snapshot, moment, request, now)
      end

      # The memo of the key, once; nil where it has ended.
      def take(key, request)
        memo = state.memos.delete(key)
        memo if memo && memo.request.equal?(request) && now - memo.time < SECONDS
      end

      def forget(key)
        state.memos.delete(key)
      end

      # A transaction that has written ends: nothing that was read in it may be stored.
      def forget_all
        state.memos.clear
      end

      def waiting?
        !state.memos.empty?
      end

      def begin_fetch(versions)
        versions.each_key { |key| state.fetches[key] = state.fetches.fetch(key, 0) + 1 }
        state.versions.merge!(versions)
      end

      # Returns the tickets that nobody has used.
      def end_fetch(keys)
        keys.each do |key|
          state.versions.delete(key)
          state.fetches.delete(key) if (state.fetches[key] -= 1).zero?
        end
        keys.to_h { |key| [key, state.memos.delete(key)&.ticket] }.compact
      end

      def in_fetch?(keys)
        keys.all? { |key| state.fetches.key?(key) }
      end

      def expect(versions)
        before = state.versions
        state.versions = before.merge(versions)
        yield
      ensure
        state.versions = before
      end

      def version(key)
        state.versions[key]
      end

      private

      def state
        Thread.current[@name] ||= State.new({}, {}, {})
      end

      def now
        Process.clock_gettime(Process::CLOCK_MONOTONIC)
      end
    end
  end
end
