# Lanes.pm: the ways of keeping a cache up to date that are compared.
#
# A lane is a hash:
#
#	id, label
#	trigger		SQL that makes the trigger "lane" on TABLE, whose key is COLUMN; or none
#	settings	of the load's sessions
#	fenced		uncache.fence_ttl is on
#	client		'app' where the load is made by client.c, 'app_unlink' where it
#				also deletes the key itself; otherwise pgbench makes it
#	base		the lane that its throughput is divided by
#	needs		an extension, or a word that _available() knows
#	beside		a program that has to run during the load, with its arguments

package Bench::Lanes;

use strict;
use warnings;

use POSIX ();

my $uncache = q{CREATE TRIGGER lane AFTER INSERT OR UPDATE OR DELETE ON TABLE
	FOR EACH ROW EXECUTE FUNCTION uncache.invalidate('item:{COLUMN}')};

sub _calls
{
	return "CREATE TRIGGER lane AFTER INSERT OR UPDATE OR DELETE ON TABLE FOR EACH ROW
		EXECUTE FUNCTION $_[0]";
}

my @lanes = (
	{ id => 'none', label => 'no trigger' },
	{ id => 'c_noop', label => 'no-op trigger in C', trigger => _calls('bench.noop()') },
	{ id => 'plpgsql_noop', label => 'no-op trigger in PL/pgSQL',
		trigger => _calls('bench.plpgsql_noop()') },
	{ id => 'eventual', label => 'pg_uncache eventual', trigger => $uncache,
		settings => 'uncache.consistency=eventual' },
	{ id => 'eventual_fenced', label => 'pg_uncache eventual, fenced', trigger => $uncache,
		fenced => 1, settings => 'uncache.consistency=eventual' },
	{ id => 'ryw', label => 'pg_uncache read_your_writes', trigger => $uncache,
		settings => 'uncache.consistency=read_your_writes' },
	{ id => 'fenced', label => 'pg_uncache read_your_writes, fenced',
		trigger => $uncache, fenced => 1,
		settings => 'uncache.consistency=read_your_writes' },
	{ id => 'strict', label => 'pg_uncache strict', trigger => $uncache, fenced => 1,
		settings => 'uncache.consistency=strict', needs => 'strict' },
	{ id => 'strict_once', label => 'pg_uncache strict, wait_timeout = 0', trigger => $uncache,
		fenced => 1, settings => 'uncache.consistency=strict -c uncache.wait_timeout=0',
		needs => 'strict' },
	{ id => 'direct', label => 'UNLINK in a C trigger (before the commit)',
		trigger => _calls(q{bench.direct_unlink('REDIS_PORT', 'item:')}) },
	{ id => 'app', label => 'an application of its own, no delete', client => 'app' },
	{ id => 'app_unlink', label => 'the same application deletes after COMMIT',
		client => 'app_unlink', base => 'app' },
	{ id => 'app_ryw', label => 'the same application, pg_uncache read_your_writes',
		trigger => $uncache, client => 'app',
		base => 'app', settings => 'uncache.consistency=read_your_writes' },
	{ id => 'outbox', label => 'outbox table in PL/pgSQL, no delivery',
		trigger => _calls('bench.plpgsql_outbox_COLUMN()') },
	{ id => 'notify', label => 'NOTIFY in PL/pgSQL, nobody listens',
		trigger => _calls('bench.plpgsql_notify_COLUMN()') },
	{ id => 'pgq', label => 'pgq event with pgqd, no consumer',
		trigger => _calls(q{pgq.logutriga('bench')}), needs => 'pgq',
		beside => [ 'pgqd', '-q', ($ENV{PRIVATE} // '.') . '/pgqd.ini' ] },
	{ id => 'plpython', label => 'redis-py in a PL/Python trigger',
		trigger => _calls('bench.plpython_delete_COLUMN()'), needs => 'plpython3u' },
	{ id => 'pgmemcache', label => 'pgmemcache (memcached, not Redis)',
		trigger => _calls('bench.memcache_delete_COLUMN()'), needs => 'pgmemcache' },
	{ id => 'redis_fdw', label => 'redis_fdw', needs => 'redis_fdw' },
);

# All of them, those that can't run here with "missing" set.
sub all { return @lanes }

my $functions = <<'SQL';
CREATE SCHEMA bench;
CREATE EXTENSION pg_uncache;
CREATE FUNCTION bench.noop() RETURNS trigger LANGUAGE C AS 'uncache_bench', 'noop';
CREATE FUNCTION bench.direct_unlink()
	RETURNS trigger LANGUAGE C AS 'uncache_bench', 'direct_unlink';
CREATE FUNCTION bench.visible_at() RETURNS bigint LANGUAGE C AS 'uncache_bench', 'visible_at';
CREATE FUNCTION bench.plpgsql_noop()
	RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TABLE bench.outbox (at timestamptz DEFAULT now(), key text);
SQL

# Of peers whose trigger must know the key's column; once for each.
my $column_functions = <<'SQL';
CREATE FUNCTION bench.plpgsql_notify_COLUMN() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('bench', 'item:' || NEW.COLUMN); RETURN NULL; END $$;
CREATE FUNCTION bench.plpgsql_outbox_COLUMN() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO bench.outbox (key) VALUES ('item:' || NEW.COLUMN); RETURN NULL; END $$;
SQL

my @columns = qw(id aid);

my %extras = (
	pgq => q{SELECT pgq.create_queue('bench')},
	plpython3u => q{CREATE FUNCTION bench.plpython_delete_COLUMN()
		RETURNS trigger LANGUAGE plpython3u AS $$
if 'r' not in GD:
    import redis
    GD['r'] = redis.Redis(host='127.0.0.1', port=REDIS_PORT)
GD['r'].unlink('item:%d' % TD['new']['COLUMN'])
$$},
	pgmemcache => q{CREATE FUNCTION bench.memcache_delete_COLUMN()
		RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM memcache_delete('item:' || NEW.COLUMN); RETURN NULL; END $$},
);

sub _available
{
	my ($session, $need) = @_;

	return $session->query("SELECT 'strict' = ANY (enumvals) FROM pg_settings
		WHERE name = 'uncache.consistency'") eq 't'
	  if $need eq 'strict';
	return $session->query("SELECT count(*) FROM pg_available_extensions
		WHERE name = '$need'") eq '1';
}

sub _for_each_column
{
	my ($session, $sql) = @_;

	$sql =~ s/REDIS_PORT/$ENV{REDIS_PORT}/g;
	$session->query($sql =~ s/COLUMN/$_/gr) foreach $sql =~ /COLUMN/ ? @columns : 'none';
	return;
}

# Make all that lanes need in the session's database.
sub prepare
{
	my ($session) = @_;

	$session->query($functions);
	_for_each_column($session, $column_functions);
	foreach my $lane (grep { $_->{needs} } @lanes)
	{
		my $need = $lane->{needs};

		$lane->{missing} = !_available($session, $need) ||
		  ($lane->{beside} && !grep { -x "$_/$lane->{beside}[0]" } split /:/, $ENV{PATH});
		next if $lane->{missing} || !$extras{$need};
		$session->query("CREATE EXTENSION $need");
		_for_each_column($session, $extras{$need});
	}
	$session->await('SELECT state FROM uncache.stat', 'connected');
	return;
}

# Start the program that a lane needs beside it; returns its process id.
sub start_beside
{
	my ($lane) = @_;

	return undef unless $lane->{beside};
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec @{ $lane->{beside} } or POSIX::_exit(127);
	}
	return $pid;
}

sub stop_beside
{
	my ($pid) = @_;

	return unless $pid;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

# Put the lane's trigger on a table, in place of the lane's before.
sub enter
{
	my ($session, $lane, $table, $column) = @_;
	my $sql = $lane->{trigger};

	$session->query("SET client_min_messages = error; DROP TRIGGER IF EXISTS lane ON $table");
	if ($sql)
	{
		my $port = redis_port();

		$sql =~ s/TABLE/$table/;
		$sql =~ s/COLUMN/$column/g;
		$sql =~ s/REDIS_PORT/$port/;
		$session->query($sql);
	}
	set_fence($session, $lane->{fenced});
	return;
}

# Where lanes find Redis: set by who puts a network in between.
our $delayed_port;

sub redis_port { return $delayed_port // $ENV{REDIS_PORT} }

my $fence_is_on = 0;

# When the fence is switched on, Redis is sent again what the outbox still has.  So where lanes
# switch it every few seconds no row would ever leave the outbox, and each switch would take longer.
sub empty_outbox
{
	my ($session) = @_;

	$session->query(q{SELECT uncache.wait('30 s')});
	$session->query('SELECT uncache.discard_backlog()');
	$session->await(q{SELECT sum(pg_relation_size('uncache.outbox_' || i))
		FROM generate_series(0, 3) i}, '0');
	return;
}

# Redis keeps the functions when the fence is switched off, and then the worker goes
# on to call them; so they are taken away, and the worker looks anew.
sub set_fence
{
	my ($session, $on) = @_;
	my @redis = ('redis-cli', '-s', $ENV{REDIS_SOCKET});

	$on = $on ? 1 : 0;
	return if $on == $fence_is_on;
	empty_outbox($session) if $on;
	$session->set_for_all('uncache.fence_ttl', $on ? '5min' : '0');
	if (!$on)
	{
		my $before = $session->query('SELECT reconnects FROM uncache.stat');

		$session->await('SELECT fence FROM uncache.stat', 'off');
		qx{@redis FUNCTION FLUSH; @redis CLIENT KILL TYPE normal};
		$session->await("SELECT reconnects > $before AND state = 'connected' FROM uncache.stat",
			't');
	}
	$session->await('SELECT fence FROM uncache.stat', $on ? 'on' : 'off');
	$fence_is_on = $on;
	return;
}

1;
