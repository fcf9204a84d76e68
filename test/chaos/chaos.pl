# chaos.pl SECONDS [SEED]: writers against an oracle, while faults strike.
#
# Model.  Redis is filled with the keys eE:1 .. eE:N of an epoch E before any
# writer uses them, and each key is used by one transaction at most, so nothing
# ever stores a key again.  A transaction writes the keys it invalidates into a
# table, so the database itself knows in the end what has committed.  Then, after
# all has healed:
#
#	lost		a committed key is in Redis
#	for nothing	a key is not in Redis, although nothing with it has committed
#
# Of an epoch that a fault empties out of Redis the second is looked for just before.
# That happens in the first half of the time only, so that the first has its chance.
#
# A statement that changes rows which are there already (an upsert, MERGE, a move to another
# partition) gives them new keys; their old ones were committed before, and are gone.  The
# new ones are noted in "expected", which has no rule, by the same transaction.  A strict
# transaction deletes its keys before it commits, so it draws from keys of their own, which
# are looked at for "lost" only.
#
# The seed decides what is done and in which order; when things happen depends on
# the machine, so a seed repeats the kind of a run and not the run.
#
# Exit code 0: nothing lost, nothing for nothing, no PANIC, the server is well.

use strict;
use warnings;

# PostgreSQL's test modules take standard output for themselves.
my $log;
BEGIN { open $log, '>&', \*STDOUT or die $! }

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

my ($seconds, $seed) = @ARGV;
$seconds ||= 60;
$seed ||= int(time) % 1_000_000;
srand $seed;
my $began = time;
my $writers = 4;
my $stripe = 10_000;			# keys of a writer in an epoch
my $strict_from = 9_000;		# of these, those above are for strict transactions
my $rows = 50;					# that are upserted, merged and moved, for each writer
my $keys = $writers * $stripe;

$Uncache::patience = 120;
# It keeps every write, and reads all of them at each start.
$RedisServer::patience = 300;
say_so("make chaos SECONDS=$seconds SEED=$seed");

my $redis = RedisServer->new_durable;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('chaos', $proxy, 'restart_after_crash = on', 'max_connections = 60',
	"uncache.redeliver_window = '1s'", "uncache.wait_timeout = '100ms'", 'uncache.ring_size = 16kB',
	"uncache.command_timeout = '500ms'", 'log_statement = none', 'max_prepared_transactions = 20',
	'log_min_messages = info', "uncache.fence_ttl = '1min'");
my $has_points = has_fault_points($node);
my $folder = $node->basedir;

$node->safe_psql('postgres', q{
	CREATE TABLE by_trigger (key text, way text DEFAULT 'INSERT');
	CREATE TABLE by_hand (key text, way text DEFAULT 'invalidate_keys');
	CREATE TABLE expected (key text, way text);
	CREATE TABLE merged (id int PRIMARY KEY, key text);
	CREATE TABLE moved (id int, top int, sub int, key text) PARTITION BY LIST (top);
	CREATE TABLE moved_0 PARTITION OF moved FOR VALUES IN (0) PARTITION BY LIST (sub);
	CREATE TABLE moved_1 PARTITION OF moved FOR VALUES IN (1) PARTITION BY LIST (sub);
	CREATE TABLE moved_00 PARTITION OF moved_0 FOR VALUES IN (0);
	CREATE TABLE moved_01 PARTITION OF moved_0 FOR VALUES IN (1);
	CREATE TABLE moved_10 PARTITION OF moved_1 FOR VALUES IN (0);
	CREATE TABLE moved_11 PARTITION OF moved_1 FOR VALUES IN (1);
	SELECT uncache.attach('by_trigger', '{key}');
	SELECT uncache.attach('merged', '{key}');
	SELECT uncache.attach('moved', '{key}')});
$node->safe_psql('postgres', 'INSERT INTO moved SELECT i, i % 2, i / 2 % 2 FROM generate_series(1, '
	. $writers * $rows . ') i');

my $epoch = 0;
my %emptied;					# epochs that were
my @gone_before;				# keys of theirs that were not in Redis any more
my $epoch_at;
my %struck;
my @pids;						# writers

END
{
	my $status = $?;
	kill 'TERM', @pids;
	$? = $status;
}

sub main
{
	next_epoch();
	@pids = map { start_writer($_) } 0 .. $writers - 1;
	while (time < $began + $seconds)
	{
		sleep 0.2 + rand 1.5;
		strike();
		next_epoch() if time > $epoch_at + 8;
		finish_prepared(rand() < 0.3 ? 3 : 0);
	}
	say_so('the end; what struck: ' . join ', ', map { "$_ $struck{$_}" } sort keys %struck);
	kill 'TERM', @pids;
	waitpid $_, 0 foreach @pids;
	@pids = ();
	my $ok = judge();
	say_so($ok ? "ok (seed $seed)" : "FAILED (seed $seed); the server's log is " . $node->logfile);
	$node->stop('fast') if $ok;
	Test::More->builder->no_ending(1);
	return $ok ? 0 : 1;
}

sub say_so
{
	my ($text) = @_;

	printf $log "%6.1f %s\n", time - $began, $text;
	$log->flush;
	return;
}

# ---------------------------------------------------------------------------
# Epochs
# ---------------------------------------------------------------------------

sub next_epoch
{
	my $next = $epoch + 1;

	$redis->fill_range("e$next:", 1, $keys);
	return if $redis->cli('exists', "e$next:$keys") ne '1';	# Redis is away: later
	open my $out, '>', "$folder/epoch.new" or die $!;
	print $out $next;
	close $out;
	rename "$folder/epoch.new", "$folder/epoch" or die $!;
	$epoch = $next;
	$epoch_at = time;
	return;
}

# ---------------------------------------------------------------------------
# Writers
# ---------------------------------------------------------------------------

sub start_writer
{
	my ($number) = @_;
	my $pid = fork;

	die "could not fork: $!" unless defined $pid;
	return $pid if $pid != 0;
	@pids = ();
	$SIG{TERM} = sub { POSIX::_exit(0) };
	srand $seed * 100 + $number + 1;
	eval { write_for_ever($number) };
	print STDERR $@ if $@;
	POSIX::_exit(0);
}

# The next keys of this writer, from those that are for such a transaction.
my %used;
sub draw
{
	my ($number, $e, $count, $strict) = @_;
	my ($first, $end) = $strict ? ($strict_from, $stripe) : (0, $strict_from);
	my $from = $used{"$e $first"} //= $first;

	return () if $from + $count > $end;
	$used{"$e $first"} += $count;
	return map { "e$e:" . ($number * $stripe + $from + $_) } 1 .. $count;
}

# Whether a key was drawn for strict transactions.
sub is_strict
{
	my ($key) = @_;

	return $key =~ /:(\d+)$/ && ($1 - 1) % $stripe >= $strict_from;
}

sub values_of { return join ',', map { "('$_')" } @_ }

# Ways to write rows with these keys, each with what notes them.
my @inserts = (
	sub { return 'INSERT INTO by_trigger VALUES ' . values_of(@_) . ';' },
	sub { return join "\n", 'COPY by_trigger FROM stdin;', (map { "$_\tCOPY" } @_), "\\.\n" },
	sub {
		my $values = values_of(@_);

		return "INSERT INTO by_hand VALUES $values;"
		  . " SELECT count(uncache.invalidate_keys(v)) FROM (VALUES $values) t(v);";
	});

# Ways to write rows that are there, each with one key.
my %updates = (
	upsert => sub {
		my ($id, $key) = @_;

		return "INSERT INTO merged
			VALUES ($id, '$key') ON CONFLICT (id) DO UPDATE SET key = EXCLUDED.key;";
	},
	MERGE => sub {
		my ($id, $key) = @_;

		return "MERGE INTO merged m USING (VALUES ($id, '$key')) s (id, key) ON m.id = s.id"
		  . ' WHEN MATCHED THEN UPDATE SET key = s.key'
		  . ' WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.key);';
	},
	'partition move' => sub {
		my ($id, $key) = @_;

		return 'UPDATE moved SET top = ' . int(rand 2) . ', sub = ' . int(rand 2)
			. ", key = '$key' WHERE id = $id;";
	});

sub statement
{
	my ($number, @some) = @_;
	my $text;

	return '' unless @some;
	return $inserts[ rand @inserts ]->(@some) . "\n" if @some > 5 || rand() < 0.6;
	foreach my $key (@some)
	{
		my $id = 1 + $number * $rows + int rand $rows;

		my $way = (sort keys %updates)[ rand keys %updates ];

		$text .= $updates{$way}->($id, $key) . " INSERT INTO expected VALUES ('$key', '$way');\n";
	}
	return $text;
}

# Rows come and go with a partition: what is attached has keys that no trigger has seen.
sub partition
{
	my ($number, @some) = @_;
	my $table = "leaf_$number";
	my $top = 100 + $number;

	return '' unless @some;
	return "DROP TABLE IF EXISTS $table; BEGIN; CREATE TABLE $table (LIKE moved);
		INSERT INTO $table VALUES "
	  . join(',', map { "(0, $top, 0, '$_')" } @some)
	  . "; ALTER TABLE moved ATTACH PARTITION $table FOR VALUES IN ($top);"
	  . ' INSERT INTO expected VALUES ' . join(',', map { "('$_', 'ATTACH')" } @some) . '; '
	  . (rand() < 0.2 ? 'ROLLBACK;' : "COMMIT; ALTER TABLE moved DETACH PARTITION $table;");
}

# COMMIT, where it is not said otherwise.
sub body
{
	my ($number, $e, $strict) = @_;
	my $kind = rand;
	my $some = sub { return statement($number, draw($number, $e, $_[0], $strict)) };

	return $some->(1) . 'COMMIT;' if $kind < 0.5;
	return $some->(1 + int rand 2000) . 'COMMIT;' if $kind < 0.53 && !$strict;
	return $some->(1 + int rand 20) . 'ROLLBACK;' if $kind < 0.65;
	return $some->(2) . 'SAVEPOINT a;' . $some->(2) . 'SAVEPOINT b;' . $some->(1)
	  . 'ROLLBACK TO a;' . $some->(1) . 'RELEASE a; COMMIT;' if $kind < 0.85 || $strict;
	my $gid = "w$number:" . int rand 1e9;
	return $some->(1 + int rand 5) . "PREPARE TRANSACTION '$gid';"
	  . (rand() < 0.4 ? "COMMIT PREPARED '$gid';" : rand() < 0.3
		? "ROLLBACK PREPARED '$gid';" : '');
}

sub transaction
{
	my ($number, $e) = @_;
	my $consistency = (qw(eventual read_your_writes read_your_writes strict))[ rand 4 ];
	my $level = ('', '', 'ISOLATION LEVEL REPEATABLE READ',
		'ISOLATION LEVEL SERIALIZABLE')[ rand 4 ];

	return partition($number, draw($number, $e, 1 + int rand 3)) if rand() < 0.06;
	return "BEGIN $level; SET LOCAL uncache.consistency = '$consistency';"
	  . (rand() < 0.1 ? ' SET LOCAL session_replication_role = replica;' : '')
	  . "\n" . body($number, $e, $consistency eq 'strict');
}

# One psql after the other, with some transactions each; it may be killed any time.
sub write_for_ever
{
	my ($number) = @_;

	while (1)
	{
		my $e = slurp_file("$folder/epoch");
		my $file = "$folder/writer$number.sql";
		open my $out, '>', $file or die $!;
		# A prepared transaction may keep a partition locked for longer than that.
		print $out "SET lock_timeout = '2s';\n";
		print $out transaction($number, $e), "\n" foreach 1 .. 20;
		close $out;
		system("psql -XAtq -d \"" . $node->connstr('postgres') . "\" -f $file >/dev/null 2>&1");
		sleep 0.05;
	}
	return;
}

# Someone else finishes what is prepared: so many, or (-1) all.
sub finish_prepared
{
	my ($most) = @_;
	my ($status, $gids) = $node->psql('postgres', 'SELECT gid FROM pg_prepared_xacts');

	foreach my $gid (split /\n/, $gids // '')
	{
		return if $most-- == 0;
		$node->psql('postgres', (rand() < 0.6 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$gid'");
	}
	return;
}

# ---------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------

sub a_pid
{
	my ($condition) = @_;
	my ($status, $pid) = $node->psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND $condition
			ORDER BY random() LIMIT 1");

	return ($pid // '') =~ /^\d+$/ ? $pid : undef;
}

sub kill_one
{
	my ($signal, $condition) = @_;
	my $pid = a_pid($condition);

	kill $signal, $pid if defined $pid;
	return;
}

sub kill_postmaster
{
	my ($signal) = @_;
	my $pid = postmaster_pid($node) or return;

	kill $signal, $pid;
	poll_until(sub { process_state($pid) eq '' || process_state($pid) eq 'Z' })
		or die 'the postmaster does not die';
	# Its children may need a moment to end, and keep a new server from starting.
	poll_until(sub {
		$node->{_pid} = undef;
		return $node->start(fail_ok => 1);
	}) or die 'the server does not start';
	return;
}

sub change
{
	my ($setting, $seconds_off) = @_;

	$node->psql('postgres', "ALTER SYSTEM SET $setting");
	$node->psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# The keys of epochs that were not emptied which are not among these.
sub gone_from
{
	my %there = map { $_ => 1 } @_;

	return map { my $e = $_; grep { !$there{$_} && !is_strict($_) } map { "e$e:$_" } 1 .. $keys }
	  grep { !$emptied{$_} } 1 .. $epoch;
}

sub strike_point
{
	my @points =
		qw(outbox-written commit-visible handed-over waiting prepare-written ring-taken batch-sent
	  answered waiter-found emptying-locked emptied scan-step);
	my $point = $points[ rand @points ];

	arm($node, $point);
	change("uncache.fault_point = '$point:" . (rand() < 0.7 ? 'kill9' : 'sleep_400') . "'");
	$struck{$point}++;
	return;
}

my %faults = (
	'kill -9 of a backend' => sub { kill_one('KILL', "backend_type = 'client backend'") },
	'kill -9 of the worker' => sub { kill_one('KILL', "backend_type = 'pg_uncache worker'") },
	'kill -9 of the launcher' => sub { kill_one('KILL', "backend_type = 'pg_uncache launcher'") },
	'kill -9 of the postmaster' => sub { kill_postmaster('KILL') },
	'immediate shutdown' => sub { kill_postmaster('QUIT') },
	'fast shutdown' => sub { kill_postmaster('INT') },
	'end of the worker' => sub { kill_one('TERM', "backend_type = 'pg_uncache worker'") },
	'end of the launcher' => sub { kill_one('TERM', "backend_type = 'pg_uncache launcher'") },
	'end of a backend' => sub { kill_one('TERM', "backend_type = 'client backend'") },
	'Redis stops' => sub { $redis->stop; sleep rand 2; $redis->start },
	'Redis is killed' => sub { $redis->kill9; sleep rand 2; $redis->start },
	'Redis comes back empty' => sub {
		# Writers go on with the old epoch, of which nothing is left to see.
		my @there = $redis->keys('e*');

		# What is no key is an error.
		push @gone_before, gone_from(@there) unless !@there || grep { !/^e\d+:\d+$/ } @there;
		$emptied{$_} = 1 foreach 1 .. $epoch;
		$redis->cli('flushall');
		$redis->kill9;
		$redis->start;
		next_epoch();
	},
	'Redis hangs' => sub { $redis->freeze; sleep rand 2; $redis->thaw },
	'the link breaks' => sub { $proxy->reset },
	'an answer is cut' => sub { $proxy->cut_after(int rand 60) },
	'a slow link' => sub { $proxy->delay(100); sleep rand 1; $proxy->behave },
	'no connections' => sub { $proxy->refuse; $proxy->reset; sleep rand 1; $proxy->behave },
	'refusals' => sub {
		$proxy->error_for((qw(UNLINK FCALL))[ rand 2 ],
			(qw(OOM READONLY MISCONF BUSY LOADING NOPERM))[ rand 6 ] . ' chaos');
		sleep rand 1;
		$proxy->behave;
	},
	'the fence on or off' => sub { change('uncache.fence_ttl = ' . (rand() < 0.7 ? "'1min'" : 0)) },
	'the functions are lost' => sub { $redis->cli('function', 'flush') },
	'reload' => sub { change('uncache.command_timeout = ' . (100 + int rand 900)) },
	'a way around the proxy' => sub {
		change("uncache.redis_url = '" . (rand() < 0.5 ? $redis->url : $proxy->url) . "'");
	},
	'delivery off and on' => sub {
		change('uncache.delivery = off');
		sleep rand 1;
		change('uncache.delivery = on');
	},
);
$faults{'fault point'} = \&strike_point if $has_points;

sub strike
{
	my @names = grep { $_ ne 'Redis comes back empty'
		|| time < $began + $seconds / 2 } sort keys %faults;
	my $name = $names[ rand @names ];

	say_so($name);
	$struck{$name}++;
	$faults{$name}->();
	return;
}

# ---------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------

sub judge
{
	my $fine = 1;
	my $complain = sub { say_so("FAILED: $_[0]"); $fine = 0 };

	$proxy->behave;
	poll_until(sub { ($node->psql('postgres', 'SELECT 1'))[0] == 0 })
		or return $complain->('the server does not answer');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->restart;
	finish_prepared(-1);
	delivered($node) or $complain->('not all is delivered');

	my %committed = map { $_ => 1 } split /\n/,
	  $node->safe_psql('postgres', 'SELECT key FROM by_trigger UNION ALL SELECT key FROM by_hand
		UNION ALL SELECT key FROM expected');
	my %alive = map { $_ => 1 } $redis->keys('e*');
	my @lost = grep { $alive{$_} } keys %committed;
	my @for_nothing = grep { !$committed{$_} } @gone_before, gone_from(keys %alive);
	say_so(sprintf '%d keys committed, %d of them in epochs that were not emptied; %d epochs of %d '
		. 'keys, %d of them emptied',
		scalar(keys %committed), scalar(grep { /^e(\d+)/ && !$emptied{$1} } keys %committed),
			$epoch, $keys, scalar(keys %emptied));
	$complain->(@lost . ' keys lost, such as ' . join ' ',
		grep { defined } @lost[ 0 .. 4 ]) if @lost;
	$complain->(@for_nothing . ' keys deleted for nothing, such as ' . join ' ',
		grep { defined } @for_nothing[ 0 .. 4 ]) if @for_nothing;
	my %ways = map { split /\|/ } split /\n/,
		$node->safe_psql('postgres', 'SELECT way, count(*) FROM
		(SELECT way FROM by_trigger UNION ALL SELECT way
			FROM by_hand UNION ALL SELECT way FROM expected) w
		GROUP BY way');
	say_so('keys by way: ' . join ', ', map { "$_ $ways{$_}" } sort keys %ways);
	# A short run may happen to miss some of them.
	$complain->('nothing has committed') unless %committed;
	$complain->("nothing has committed by way of $_")
	  foreach $seconds < 60 ? () : grep { !$ways{$_} } qw(INSERT COPY invalidate_keys ATTACH),
		keys %updates;

	my $text = slurp_file($node->logfile);
	$complain->("in the log: $1") if $text =~ /((?:PANIC|TRAP|signal 11|signal 6).*)/;
	return $fine;
}

# PostgreSQL's test modules have standard error, too.
my $code = eval { main() };
say_so("FAILED (seed $seed): $@") unless defined $code;
exit($code // 1);
