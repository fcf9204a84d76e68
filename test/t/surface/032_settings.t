# A worker runs with the settings of its database: a change counts from the commit
# on.  DROP EXTENSION warns of a backlog.  A worker that can't start is tried
# again, ever less often.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;
use Workers;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);

sub sql { return $node->safe_psql('postgres', @_) }

my $pid = wait_for_worker($node, 'postgres');
sql('CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
my $other = wait_for_worker($node, 'other');

# restarts(COMMAND, WHOM): the databases of WHOM get a new worker, others do not.
sub restarts
{
	my ($command, %whom) = @_;

	sql($command);
	foreach my $database ('postgres', 'other')
	{
		my $current = $database eq 'postgres' ? \$pid : \$other;

		next unless $whom{$database};
		$$current = wait_for_new_worker($node, $database, $$current);
		ok($$current, "$command: a new worker for $database");
	}
	is(worker_of($node, 'postgres'), $pid, "$command: no further restart of postgres");
	is(worker_of($node, 'other'), $other, "$command: no further restart of other");
}

restarts(q{ALTER DATABASE other SET uncache.key_prefix = 'a:'}, other => 1);
restarts('ALTER DATABASE other RESET uncache.key_prefix', other => 1);
restarts('ALTER DATABASE other RESET ALL', other => 1);
restarts(q{ALTER DATABASE other SET work_mem = '8MB'});
restarts(q{ALTER ROLE ALL SET uncache.redeliver_window = '30s'}, other => 1, postgres => 1);
restarts(q{ALTER ROLE ALL IN DATABASE postgres SET uncache.redeliver_window = '40s'},
	postgres => 1);
my $superuser = sql('SELECT rolname FROM pg_authid WHERE oid = 10');
restarts(qq{ALTER ROLE "$superuser" RESET uncache.redeliver_window}, other => 1, postgres => 1);
restarts(q{CREATE ROLE app; ALTER ROLE app SET uncache.consistency = eventual});

# Never before the commit, and not at all without one.
{
	my $session = $node->background_psql('postgres');

	$session->query_safe('BEGIN');
	$session->query_safe(q{ALTER DATABASE other SET uncache.key_prefix = 'b:'});
	$session->query_safe('ROLLBACK');
	$session->query_safe('BEGIN');
	$session->query_safe(q{ALTER DATABASE other SET uncache.key_prefix = 'c:'});
	is(worker_of($node, 'other'), $other, 'neither a rollback nor an open transaction restarts it');
	$session->query_safe('COMMIT');
	$other = wait_for_new_worker($node, 'other', $other);
	ok($other, 'the commit does');
	$session->quit;
}

# DROP EXTENSION warns of what is not delivered, by whatever way it comes.
sub drop_with_backlog
{
	my ($drop) = @_;
	my (undef, undef, $messages) = $node->psql('other', $drop);

	return $messages;
}

foreach my $drop ('DROP EXTENSION pg_uncache', 'DROP SCHEMA uncache CASCADE')
{
	$node->safe_psql('other', q{SELECT uncache.invalidate_keys('delivered')});
	ok(delivered($node, 'other'), 'all is delivered');
	unlike(drop_with_backlog($drop), qr/WARNING/, "$drop without a backlog does not warn");
	$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
	wait_for_worker($node, 'other');

	sql('ALTER DATABASE other SET uncache.delivery = off');
	$node->safe_psql('other', qq{SELECT uncache.invalidate_keys('kept $_')}) foreach 1 .. 3;
	my $messages = drop_with_backlog("BEGIN; $drop; ROLLBACK");
	like($messages, qr/WARNING: .* 3 undelivered rows/, "$drop with a backlog warns");
	is(scalar(() = $messages =~ /WARNING/g), 1, 'once');
	like(drop_with_backlog($drop), qr/WARNING: .* 3 undelivered rows/, 'and again after ROLLBACK');
	sql('ALTER DATABASE other RESET uncache.delivery');
	$node->safe_psql('other', 'CREATE EXTENSION pg_uncache');
	ok(wait_for_worker($node, 'other'), 'the extension can be created again');
}

# A database to which nobody can connect: its worker is tried ever less often, and
# no other database suffers.
{
	my $oid = sql(q{SELECT oid FROM pg_database WHERE datname = 'other'});
	my $version = $node->data_dir . "/base/$oid/PG_VERSION";
	my $offset = -s $node->logfile;
	my @at;

	rename $version, "$version.away" or die "could not rename: $!";
	$other = wait_for_worker($node, 'other');
	sql("SELECT pg_terminate_backend($other)");
	ok(poll_until(sub {
		my $log = slurp_file($node->logfile, $offset);

		@at = map { $_->[0] * 3600 + $_->[1] * 60 + $_->[2] }
		  map { [/ (\d+):(\d+):(\d+\.\d+) /] }
		  grep { /FATAL: .*not a valid data directory/ } split /\n/, $log;
		return @at >= 3;
	}), 'a worker that can not start is tried again');
	cmp_ok($at[1] - $at[0], '>=', 1.5, 'after a pause');
	cmp_ok($at[2] - $at[1], '>=', 1.5 * ($at[1] - $at[0]), 'that grows');
	ok(wait_for_worker($node, 'postgres'), 'postgres has its worker all the time');
	rename "$version.away", $version or die "could not rename: $!";
	ok(wait_for_worker($node, 'other'), 'it starts when its database is whole again');
}

# What is due at once is not held up by a pause.
{
	my $other = wait_for_worker($node, 'other');

	sql("SELECT pg_terminate_backend($other)");
	sql(q{ALTER DATABASE other SET uncache.key_prefix = 'd:'});
	ok(wait_for_new_worker($node, 'other', $other), 'a change of a setting ends a pause');
}

$node->stop;
done_testing();
