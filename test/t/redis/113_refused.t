# Keys that Redis refuses for want of rights: who waits for them, what is counted, and
# the way back.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;

sub acl
{
	$redis->cli(qw(acl setuser limited), @_) eq 'OK' or die "not an ACL: @_";
	return;
}

acl(qw(on >secret ~* &* +@all));
my $node = new_node('main', undef,
	"uncache.redis_url = 'unix://limited:secret@" . $redis->socket . "'",
	'uncache.fence_ttl = 5min', 'uncache.wait_timeout = 60s');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

# Commit a key in a session of its own for each; the number of warnings.
sub warnings_of
{
	my $warnings = 0;

	foreach my $key (@_)
	{
		my (undef, undef, $err) = $node->psql('postgres', "SELECT uncache.invalidate_keys('$key')");
		$warnings++ if $err =~ /WARNING/;
	}
	return $warnings;
}

# Until the pause before the next try has grown beyond what the way back may take.
sub refused_for_long
{
	return $node->poll_query_until('postgres', 'SELECT max(attempts) >= 4 FROM uncache.backlog');
}

ok($node->poll_query_until('postgres', q{SELECT fence = 'on' FROM uncache.stat}),
	'the fence is on');
my @keys = map { "key:$_" } 1 .. 10;
is(warnings_of(@keys), 0, 'commits wait, without a warning');
is(stat_of(q{waits || ' ' || waits_skipped || ' ' || keys_refused || ' ' || keys_refused_now}),
	'10 0 0 0', 'nothing is refused');

# --- the functions may not delete any more ---

acl('-unlink');
$redis->fill(@keys);
is(warnings_of(@keys), 1, 'without the right to UNLINK one commit waits in vain');
is(stat_of('waits_skipped'), '9', 'the others do not wait');
is(stat_of('state'), 'connected', 'the worker stays connected');
ok($node->poll_query_until('postgres',
	'SELECT keys_refused = 10 AND keys_refused_now = 10 FROM uncache.stat'), 'all are counted');
like(stat_of('last_error'), qr/^Redis has refused an invalidation/, 'last_error says it');
ok(refused_for_long(), 'they are tried again, with growing pauses');
is(stat_of('keys_refused'), '10', 'each counts once');
acl('+unlink');
ok(poll_until(sub { stat_of('keys_refused_now') eq '0' }, 4),
	'when the right is back so are they, soon');
is(join(' ', $redis->keys('key:*')), '', 'and their keys are gone');
ok(delivered($node), 'all is delivered');
my $skipped = stat_of('waits_skipped');
is(warnings_of(@keys), 0, 'commits wait again');
is(stat_of('waits_skipped'), $skipped, 'all of them');

# --- one rule, and one prefix, of several ---

sql(q{CREATE TABLE item (id int);
	SELECT uncache.attach('item', 'open:{id}');
	CREATE TABLE other (id int);
	SELECT uncache.attach('other', 'shut:{id}')});
acl(qw(resetkeys ~open:* ~uncache:*));
is(warnings_of('open:1', 'shut:1', 'open:2', 'shut:2', 'open:3'), 1,
	'of several prefixes one is refused');
is(stat_of('waits_skipped'), $skipped + 1, 'nobody waits for it, and for the others everybody');
my $both = q{INSERT INTO item VALUES (1); INSERT INTO other VALUES (1); INSERT INTO item VALUES (2);
	INSERT INTO other VALUES (2)};
my (undef, undef, $err) = $node->psql('postgres', $both);
my $count = () = $err =~ /WARNING/g;
is($count, 1, 'so it is with rules');
is(stat_of('waits_skipped'), $skipped + 2, 'each by itself');

# A key alone that is refused, among others of its rule that are not.
acl(qw(resetkeys ~open:1* ~shut:* ~uncache:*));
ok(poll_until(sub { stat_of('keys_refused_now') eq '0' }, 4), 'these come back, too');
my $waits = stat_of('waits');
is(warnings_of('open:2'), 1, 'one key is refused');
is(warnings_of('open:1'), 0, 'another is accepted');
is(warnings_of('open:1'), 0, 'and waited for');
cmp_ok(stat_of('waits'), '>', $waits + 1, 'as before');
ok($node->poll_query_until('postgres', 'SELECT keys_refused_now = 1 FROM uncache.stat'),
	'the one is counted');

# --- a worker that begins anew, and the backlog that is given up ---

my $worker = stat_of('worker_pid');
sql("SELECT pg_terminate_backend($worker)");
# It sends again what is in the outbox, of which more is refused by now.
ok($node->poll_query_until('postgres', qq{SELECT state = 'connected' AND worker_pid <> $worker
	AND keys_refused_now > 0 FROM uncache.stat}), 'the next worker knows of it');
sql('SELECT uncache.discard_backlog()');
ok($node->poll_query_until('postgres', 'SELECT keys_refused_now = 0 FROM uncache.stat'),
	'what is discarded is not counted');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
