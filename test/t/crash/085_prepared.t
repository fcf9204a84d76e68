# Two-phase commit: over a restart, finished by another session or by nobody.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, "uncache.consistency = 'eventual'",
	'uncache.redeliver_window = 1s');

ok(wait_for_state($node, 'connected'), 'the worker is connected');

sub prepare
{
	my ($name, @keys) = @_;
	my $keys = join ', ', map { "'$_'" } @keys;

	$redis->fill(@keys);
	$node->safe_psql('postgres', "BEGIN; SELECT uncache.invalidate_keys(VARIADIC ARRAY[$keys]);
		PREPARE TRANSACTION '$name'");
	return;
}

prepare('a', 'a:1', 'a:2');
prepare('b', 'b:1');
prepare('c', 'c:1');
prepare('d', 'd:1');
prepare('e', map { "e:$_" } 1 .. 5000);
ok(delivered($node), 'what is prepared is not waited for');
my $started = time;
$node->safe_psql('postgres', q{COMMIT PREPARED 'a'});
ok(gone($redis, 'a:2'), 'COMMIT PREPARED from another session delivers');
cmp_ok(time - $started, '<', 1.5, 'at once');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'b'});

foreach my $mode ('fast', 'immediate')
{
	$node->stop($mode);
	$node->start;
	ok(delivered($node), "nothing is left to deliver after a $mode restart");
	is($redis->cli('exists', 'b:1', 'c:1', 'd:1', 'e:1', 'e:5000'), '5',
		'what is rolled back or not finished is there');
}
$started = time;
$node->safe_psql('postgres', q{COMMIT PREPARED 'c'});
ok(gone($redis, 'c:1'), 'COMMIT PREPARED after the restarts delivers');
cmp_ok(time - $started, '<', 1.5, 'at once');
$node->safe_psql('postgres', q{COMMIT PREPARED 'e'});
ok(gone($redis, 'e:5000'), 'of 5000 keys, too');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'd'});
ok(delivered($node), 'everything is delivered');
is($redis->cli('exists', 'b:1', 'd:1'), '2', 'but what was rolled back');

# Committed, and nobody remembers: Redis hangs, the server crashes right after.
prepare('f', 'f:1');
$redis->freeze;
$node->safe_psql('postgres', q{COMMIT PREPARED 'f'});
$node->stop('immediate');
$redis->thaw;
$redis->fill('f:1');
$node->start;
ok(gone($redis, 'f:1'), 'a crash right after COMMIT PREPARED: it is delivered');

# An orphan: the tables that rotate are emptied all the same.
prepare('orphan', 'orphan:1');
my $bytes = q{SELECT sum(pg_relation_size(c.oid)) FROM pg_class c WHERE relname ~ '^outbox_\d'};
my %sizes;
ok(poll_until(sub {
	$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('x')});
	$sizes{ $node->safe_psql('postgres', q{SELECT string_agg(relname, ' ' ORDER BY relname)
		FROM pg_class WHERE relname ~ '^outbox_\d$' AND pg_relation_size(oid) > 0}) }++;
	return grep({ /0/ } keys %sizes) && grep({ /^[^0]+$/ } keys %sizes);
}), 'with an orphaned prepared transaction the tables take turns as ever');
ok($node->poll_query_until('postgres', "SELECT ($bytes) = 0"),
	'and are emptied when there is nothing to do');
ok(wait_for_state($node, 'connected'), 'the worker is well');
ok($redis->has('orphan:1'), 'its key is there');

# Who wants the tables alone waits for the orphan, and nobody waits behind.
sub waits_for_lock
{
	my ($command) = @_;

	return $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity
			WHERE query LIKE '$command%' AND wait_event_type = 'Lock'");
}

my $vacuum = start_psql($node, 'VACUUM FULL uncache.outbox_side');
ok(waits_for_lock('VACUUM'), 'VACUUM FULL waits for the orphan');
$node->safe_psql('postgres', q{SELECT uncache.wait('0')});	# has the worker look at that table
$redis->fill('h');
$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('h')});
ok(gone($redis, 'h'), 'the worker does not wait behind it');
like($node->safe_psql('postgres', 'SELECT last_error FROM uncache.stat'), qr/outbox_side is locked/,
	'and says what keeps it from some keys');
$node->safe_psql('postgres',
	q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'VACUUM%'});
$vacuum->finish;

foreach my $command ('DROP EXTENSION pg_uncache CASCADE', 'DROP SCHEMA uncache CASCADE')
{
	my (undef, undef, $err) = $node->psql('postgres', "SET statement_timeout = '60s'; $command");

	like($err, qr/cannot drop extension "pg_uncache" because another transaction uses its outbox/,
		"nor do commits wait behind $command: it is refused");
	like($err, qr/pg_prepared_xacts/, 'and says what to look at');
}
$node->safe_psql('postgres', q{COMMIT PREPARED 'orphan'});
ok(gone($redis, 'orphan:1'), 'the orphan is finished, and delivered');
$node->safe_psql('postgres', 'DROP EXTENSION pg_uncache');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_extension WHERE extname = 'pg_uncache'}),
	'0', 'and DROP EXTENSION goes through');

$node->stop;
done_testing();
