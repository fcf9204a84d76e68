# frozen_string_literal: true

module PgUncache
  module Rails
    # Tells the transactions of a connection apart, and looks whether one that ends has written
    # while a fill is under way: what such a one has read is not for the cache, and a rollback
    # leaves no trace of it.
    module TransactionWatch
      # A connection, its transaction (a number), and whether one is open.
      Moment = Struct.new(:connection, :number, :open) do
        # May what was read from here on be stored there?  In the transaction it was read in, or
        # outside of any, yes.  A transaction that wrote in between has made the memory forget.
        def may_end_at?(other)
          !other.nil? && connection == other.connection && (!open || number == other.number)
        end
      end

      module_function

      # The connection, watched; nil where the extension is not installed.
      def extend_over(connection, memory)
        connection.extend(Watch) unless connection.is_a?(Watch)
        connection.uncache_memories << memory unless connection.uncache_memories.include?(memory)
        connection if connection.uncache_installed?
      end

      def moment(connection)
        Moment.new(connection.object_id, connection.uncache_number, connection.transaction_open?)
      end

      # On a connection of ActiveRecord's.
      module Watch
        # Seconds until an extension that was missing is looked for again.
        PAUSE = 60

        def uncache_memories
          @uncache_memories ||= []
        end

        def uncache_number
          @uncache_number ||= 0
        end

        def uncache_installed?
          return true if @uncache_installed
          return false if uncache_failed?

          now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
          return false if @uncache_looked && now - @uncache_looked < PAUSE

          @uncache_looked = now
          sql = "SELECT to_regprocedure('uncache.snapshot(text[])') IS NOT NULL"
          @uncache_installed = uncached { select_value(sql, "pg_uncache") }
        end

        def commit_db_transaction
          uncache_ends
          super
        end

        def exec_rollback_db_transaction
          uncache_ends
          super
        end

        def exec_restart_db_transaction
          uncache_ends
          super
        end

        private

        def uncache_raw
          @raw_connection || @connection
        end

        def uncache_failed?
          uncache_raw&.transaction_status == ::PG::PQTRANS_INERROR
        end

        # One round trip, only while a fill is under way.
        def uncache_ends
          @uncache_number = uncache_number + 1
          waiting = uncache_memories.select(&:waiting?)
          waiting.each(&:forget_all) if waiting.any? && uncache_wrote?
        end

        def uncache_wrote?
          raw = uncache_raw
          return false if raw.nil? || raw.transaction_status == ::PG::PQTRANS_IDLE
          return true unless raw.transaction_status == ::PG::PQTRANS_INTRANS

          !raw.exec("SELECT pg_current_xact_id_if_assigned() IS NULL").getvalue(0, 0).then do |v|
            [true, "t"].include?(v)
          end
        rescue ::PG::Error
          true
        end
      end
    end
  end
end
