# Uncache.pm: what the TAP tests of pg_uncache share.

package Uncache;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);

our @EXPORT =
	qw(new_node poll_until gone wait_for_state comes_true delivered is_quiet outbox_is_empty
	  outbox_size outbox_is_emptied);

# Seconds until a test gives up waiting; far more than anything should need.
our $patience = $ENV{UNCACHE_TEST_PATIENCE} // 60;

# new_node(NAME, REDIS, LINE...): a server that preloads the library and
# delivers to REDIS (undef: to the default), with further lines of
# postgresql.conf; started, and with the extension in the database postgres.
sub new_node
{
	my ($name, $redis, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init;
	$node->append_conf('postgresql.conf', join "\n",
		"shared_preload_libraries = 'pg_uncache'",
		'max_prepared_transactions = 10',
		'uncache.wait_timeout = 5s',
		(defined $redis ? "uncache.redis_url = '" . $redis->url . "'" : ()),
		@conf, '');
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
	return $node;
}

# How many processes want each core, at least 1.
sub crowd
{
	my ($load) = slurp_file('/proc/loadavg') =~ /^([\d.]+)/;
	my $cores = () = slurp_file('/proc/cpuinfo') =~ /^processor\b/mg;
	my $crowd = $load / ($cores || 1);

	return $crowd > 1 ? $crowd : 1;
}

# poll_until(CODE): call it until it returns true; false after $patience.  With
# SECONDS false after that time, which is what the documents promise; a crowded
# machine gets more, since there it says little of us.
sub poll_until
{
	my ($done, $seconds) = @_;
	my $deadline = time + (defined $seconds ? $seconds * crowd() : $patience);

	until ($done->())
	{
		return 0 if time > $deadline;
		sleep 0.02;
	}
	return 1;
}

# Whether the key leaves Redis in time.
sub gone
{
	my ($redis, $key) = @_;

	return poll_until(sub { $redis->cli('exists', $key) eq '0' });
}

# Whether a query returns true in time, on a server that may be restarting: psql can end
# there before it has read the query, which poll_query_until does not survive.
sub comes_true
{
	my ($node, $query) = @_;

	return poll_until(sub {
		my (undef, $out) = eval { $node->psql('postgres', $query) };

		return defined $out && $out eq 't';
	});
}

# Whether the worker of a database reaches a state of uncache.stat.
sub wait_for_state
{
	my ($node, $state, $database) = @_;

	return $node->poll_query_until($database // 'postgres',
		"SELECT state = '$state' FROM uncache.stat");
}

# Whether all that is committed in the database is delivered in time.
sub delivered
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		"SELECT uncache.wait('$patience s')") eq 't';
}

# Whether the worker comes to rest: for the time of some pings to this Redis nothing
# is sent again, as it is for a while after a start, and after a node has come back.
sub is_quiet
{
	my ($node, $redis) = @_;
	my $retries = sub { $node->safe_psql('postgres', 'SELECT retries FROM uncache.stat') };

	return poll_until(sub {
		my ($before, $pings) = ($retries->(), $redis->pings);

		return poll_until(sub { $redis->pings >= $pings + 3 }) && $retries->() == $before;
	});
}

# Bytes of the outbox tables.
sub outbox_size
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		q{SELECT sum(pg_relation_size('uncache.outbox_' || i)) FROM generate_series(0, 3) i});
}

# The worker empties all of them, once it may.
sub outbox_is_emptied
{
	my ($node, $database) = @_;

	return poll_until(sub { outbox_size($node, $database) eq '0' });
}

# Nothing waits to be delivered.
sub outbox_is_empty
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres', 'SELECT count(*) FROM uncache.backlog') eq '0';
}

1;
