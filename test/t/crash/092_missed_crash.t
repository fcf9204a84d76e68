# A crash that nobody notices at the time: the server is shut down again before a
# worker has come to the database.  after_lost_commits = flush counts it all the
# same; and several clean shutdowns that nobody notices are none.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, q{uncache.after_lost_commits = 'flush'},
	q{uncache.redeliver_window = '1s'});

$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v int);
	INSERT INTO item VALUES (1, 1);
	SELECT uncache.attach('item', 'item:{id}')});

sub incarnation { return $node->safe_psql('postgres', 'SELECT id FROM uncache.incarnation') }

# A life of the server in which no worker can be started; it ends cleanly.
sub live_without_worker
{
	my (@conf) = @_;
	my $before = incarnation_while_stopped();

	set_conf($node, 'max_worker_processes', '0');
	set_conf($node, @$_) foreach @conf;
	$node->start;
	is(incarnation(), $before, 'a life of which no worker tells');
	$node->stop('fast');
	set_conf($node, 'max_worker_processes', '8');
	return;
}

my $incarnation;

sub incarnation_while_stopped { return $incarnation }

sub stop
{
	my ($mode) = @_;

	# What was delivered is not sent again: it must not be taken for a flush.
	ok($node->poll_query_until('postgres', q{
		SELECT pg_relation_size('uncache.outbox_0') + pg_relation_size('uncache.outbox_1')
			+ pg_relation_size('uncache.outbox_2') + pg_relation_size('uncache.outbox_3') = 0}),
		'the outbox is empty');
	$incarnation = incarnation();
	# The worker's commit of it does not wait for the disk, but this one does.
	$node->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'test', '')});
	$redis->fill('item:1', 'other:1');
	$node->stop($mode);
	return;
}

# Start, and let the worker do all that it has to.
sub start
{
	$node->start;
	ok(wait_for_state($node, 'connected') && delivered($node), 'the worker is up to date');
	isnt(incarnation(), $incarnation, 'and has told of this life');
	return;
}

stop('fast');
live_without_worker();
live_without_worker();
start();
ok($redis->has('item:1'), 'several clean shutdowns: nothing is deleted');

stop('immediate');
live_without_worker();
live_without_worker();
start();
ok(!$redis->has('item:1'), 'a crash before them: all keys of the rules are deleted');
ok($redis->has('other:1'), 'and no other');

stop('fast');
live_without_worker(['shared_preload_libraries', '']);
set_conf($node, 'shared_preload_libraries', 'pg_uncache');
start();
ok(!$redis->has('item:1'), 'so they are after a life without the library, which may have crashed');

stop('fast');
start();
ok($redis->has('item:1'), 'a clean shutdown and nothing else: nothing is deleted');

# The file of an earlier shutdown means nothing.
my $file = $node->data_dir . '/pg_stat/pg_uncache.lineage';
my $old = slurp_file($file);
stop('immediate');
ok(-e $file, 'a file of the clean shutdown is left behind');
$node->start;
$node->stop('fast');
isnt(slurp_file($file), $old, 'the next one replaces it');
append_to_file("$file.old", $old);
rename "$file.old", $file or die $!;
start();
ok(!$redis->has('item:1'), 'an old file in its place is not believed');

$node->stop;
done_testing();
