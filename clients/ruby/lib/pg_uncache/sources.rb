# frozen_string_literal: true

module PgUncache
  # Where values come from: the database, behind a small interface.  checkout yields the connection
  # on which a fill takes its snapshot and reads; snapshots(connection, tokens) gives texts or nil.
  module Sources
    # Milliseconds that a shadow check waits for what is committed to be delivered.
    WAIT_MS = 1000

    module_function

    def for(db, snapshot)
      return Callable.new(snapshot) if snapshot && db.nil?
      raise UsageError, "give either db: or snapshot:" if snapshot || db.nil?
      return Records.new if db == :active_record
      return Records.new(db) if db.respond_to?(:connection_pool)

      Pg.new(db)
    end

    # An application that takes the snapshot by itself: a lambda from a token to a text or nil.
    class Callable
      def initialize(snapshot)
        @snapshot = snapshot
      end

      def checkout
        yield nil
      end

      def busy? = false

      def in_transaction?(_connection) = false

      def snapshots(_connection, tokens)
        tokens.map { |token| token && @snapshot.call(token) }
      end

      def rows(*)
        raise UsageError, "this needs db:, not snapshot:"
      end
      alias transaction rows
      alias delivered? rows
    end

    # The statements, for any kind of connection.
    class Statements
      # Tokens stand in the statement, so that the snapshots count as fresh.
      def snapshots(connection, tokens)
        asked = tokens.compact
        return tokens.map { nil } if asked.empty? || failed?(connection)

        texts = rows(connection, "SELECT unnest(uncache.snapshot($1::text[])) AS s",
                     [array(asked)]).map { |row| row["s"] }
        tokens.map { |token| token && texts.shift }
      end

      def delivered?(connection)
        row = rows(connection, "SELECT uncache.wait($1::interval) AS w", ["#{WAIT_MS} ms"]).first
        [true, "t"].include?(row["w"])
      end

      private

      # Tokens consist of letters, digits, dots and colons.
      def array(tokens)
        "{#{tokens.map { |token| %("#{token}") }.join(',')}}"
      end
    end

    # A PG::Connection, a pool of them (anything with `with`), or a proc that yields one.
    class Pg < Statements
      def initialize(db)
        super()
        require "pg"
        @db = db
        @one = Mutex.new if db.is_a?(::PG::Connection)
      end

      # A single connection serves one thread at a time.
      def checkout(&block)
        return @one.owned? ? yield(@db) : @one.synchronize { yield @db } if @one

        @db.respond_to?(:with) ? @db.with(&block) : @db.call(&block)
      end

      # Whether this thread is in a transaction is known of a single connection only.
      def busy?
        !@one.nil? && in_transaction?(@db)
      end

      def in_transaction?(connection)
        connection.transaction_status != ::PG::PQTRANS_IDLE
      end

      def failed?(connection)
        connection.transaction_status == ::PG::PQTRANS_INERROR
      end

      def rows(connection, sql, params)
        connection.exec_params(sql, params).to_a
      end

      def transaction(connection)
        raise UsageError, "transaction: there is one already" if in_transaction?(connection)

        connection.exec("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
        value = yield
        connection.exec("COMMIT")
        value
      ensure
        connection.exec("ROLLBACK") if in_transaction?(connection)
      end
    end

    # ActiveRecord.  The query cache would answer with rows that are older than the snapshot, so it
    # is cleared behind each snapshot.  Records that the application has loaded before are its own.
    class Records < Statements
      def initialize(model = nil)
        super()
        @model = model
      end

      def checkout
        yield connection
      end

      def connection
        model = @model || ::ActiveRecord::Base
        model.respond_to?(:lease_connection) ? model.lease_connection : model.connection
      end

      def busy?
        connection.transaction_open?
      end

      def in_transaction?(connection)
        connection.transaction_open?
      end

      def failed?(connection)
        raw = connection.instance_variable_get(:@raw_connection) || # from 7.1 on
              connection.instance_variable_get(:@connection)
        !raw.nil? && raw.transaction_status == ::PG::PQTRANS_INERROR
      end

      def snapshots(connection, tokens)
        super.tap { connection.clear_query_cache }
      end

      # No prepared statements, which a pooler may not keep.
      def rows(connection, sql, params)
        sql = sql.gsub(/\$(\d+)/) { connection.quote(params[$1.to_i - 1]) }
        connection.uncached { connection.select_all(sql, "pg_uncache").to_a }
      end

      def transaction(connection)
        raise UsageError, "transaction: there is one already" if in_transaction?(connection)

        connection.transaction do
          connection.execute("SET TRANSACTION READ ONLY, ISOLATION LEVEL READ COMMITTED")
          yield
        end
      end
    end
  end
end
