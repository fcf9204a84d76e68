# Each line that a worker writes to the log names its database; its first one tells version
# and address; and the log hears when Redis cannot be used for another reason.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
$redis->cli(qw(acl setuser me on >badsecret ~* +@all));
my $node = new_node('main', $redis,
	"uncache.redis_url = 'unix://me:badsecret\@" . $redis->socket . "'");

sub sql { return $node->safe_psql('postgres', @_) }
sub logged { return slurp_file($node->logfile) =~ $_[0] }

# How often the log has a text.
sub times_logged
{
	my ($text) = @_;
	my $found = () = slurp_file($node->logfile) =~ /\Q$text\E/g;

	return $found;
}

$node->safe_psql('postgres', 'CREATE DATABASE "Ä shop"');
$node->safe_psql('Ä shop', 'CREATE EXTENSION pg_uncache');
my %workers;
foreach my $database ('postgres', 'Ä shop')
{
	ok(wait_for_state($node, 'connected', $database), "$database is served");
	$workers{$database} = $node->safe_psql($database, 'SELECT worker_pid FROM uncache.stat');
	my $version = sql('SELECT uncache.version()');
	my $socket = $redis->socket;
	ok(logged(
		qr{LOG:  database "$database": pg_uncache \Q$version\E has started a worker for Redis at unix://\Q$socket\E}),
		"$database: the first line has version and address");
}
unlike(slurp_file($node->logfile), qr/badsecret/, 'without the password');

# A server that goes, is back with another password, and lets nobody in.
$redis->stop;
ok(poll_until(sub { logged(qr/database "postgres": Redis at \S+ cannot be used:/) }),
	'the log hears that Redis is gone');
$redis->start;
my $refusal = 'refused the user name or the password';
ok(poll_until(sub { logged(
	qr/database "postgres": Redis at \S+ cannot be used for another reason now: .*$refusal/) }, 30),
	'and the reason, when it changes');
ok($node->poll_query_until('postgres', "SELECT last_error LIKE '%$refusal' FROM uncache.stat"),
	'as last_error has it');
my $connections = sub { ($redis->cli(qw(info stats)) =~ /total_connections_received:(\d+)/)[0] };
my $before = $connections->();
ok(poll_until(sub { $connections->() > $before + 6 }), 'it is tried again');
cmp_ok(times_logged("now: Redis at"), '<=', 2, 'each worker says it once');
$redis->cli(qw(acl setuser me on >badsecret ~* +@all));
ok(wait_for_state($node, 'connected'), 'connected again');
ok(poll_until(sub { logged(qr/database "postgres": connected to Redis at \S+ again after/) }),
	'as the log says');

# An error of PostgreSQL's own, in a worker.
kill 'TERM', $workers{postgres};
ok($node->poll_query_until('postgres', "SELECT worker_pid <> $workers{postgres} FROM uncache.stat"),
	'a worker is replaced');
foreach my $database (sort keys %workers)
{
	my @lines = grep { /\[$workers{$database}\] (?:LOG|WARNING|ERROR|FATAL):/ } split /\n/,
		slurp_file($node->logfile);

	cmp_ok(scalar @lines, '>', 2, "$database: its worker has said something");
	is(join("\n", grep { !/:  database "$database": / } @lines), '',
		'... and always named the database');
}

$node->stop;
done_testing();
