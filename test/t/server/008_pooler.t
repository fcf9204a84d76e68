# One server session that a pooler in transaction mode hands from client to
# client: what one leaves behind never reaches the next one's transaction.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis);

$node->safe_psql('postgres', q{
	CREATE ROLE ann LOGIN;
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i;
	GRANT ALL ON item TO ann;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the worker is up to date');
my $session = $node->background_psql('postgres', on_error_stop => 0);

# Run a client's transaction in the shared session; return which of the keys
# item:1 to item:9 are gone the moment it is over.
sub client
{
	my ($sql) = @_;
	my %left;

	$redis->fill(map { "item:$_" } 1 .. 9);
	$session->query($sql);
	# What the server had to say is not of interest here.
	$session->{stderr} = '';
	%left = map { $_ => 1 } $redis->keys('item:*');
	return join ' ', grep { !$left{"item:$_"} } 1 .. 9;
}

is(client('BEGIN; UPDATE item SET n = n + 1 WHERE id = 1; COMMIT;'), '1', 'a first client');
is(client('BEGIN; UPDATE item SET n = n + 1 WHERE id = 2; ROLLBACK;'), '', 'one that rolls back');
is(client('BEGIN; UPDATE item SET n = n + 1 WHERE id = 3; SELECT 1 / 0; COMMIT;'),
	'', 'one that fails');
is(client('BEGIN; SELECT 1; COMMIT;'), '', 'one that only reads gets nothing of them');
is(client('SET SESSION AUTHORIZATION ann; BEGIN; UPDATE item SET n = n + 1 WHERE id = 4; COMMIT;
	RESET SESSION AUTHORIZATION;'),
	'4', 'one with another user');
is(client(q{BEGIN; SET LOCAL search_path = pg_temp; SET LOCAL TimeZone = 'Asia/Tokyo';
	UPDATE public.item SET n = n + 1 WHERE id = 5; COMMIT;}), '5', 'one with settings of its own');
is(client('DISCARD ALL;'), '', 'the pooler cleans up');
is(client('UPDATE item SET n = n + 1 WHERE id = 6;'), '6', 'one without BEGIN');
is(client(q{PREPARE p AS UPDATE item SET n = n + 1 WHERE id = $1; EXECUTE p(7); DEALLOCATE p;}),
	'7', 'a prepared statement');
is(client('BEGIN; UPDATE item SET n = n + 1 WHERE id = 8; SAVEPOINT s;
	UPDATE item SET n = n + 1 WHERE id = 9;
	ROLLBACK TO s; COMMIT AND CHAIN; UPDATE item SET n = n + 1 WHERE id = 9; ROLLBACK;'), '8',
		'chained transactions');

# The same with a setting that lasts for one transaction only.
is(client('BEGIN; SET LOCAL uncache.enabled = off; UPDATE item SET n = n + 1 WHERE id = 1;
	COMMIT;'), '', 'enabled = off');
is(client('BEGIN; UPDATE item SET n = n + 1 WHERE id = 1; COMMIT;'), '1',
	'is over with its transaction');

$session->quit;
$node->stop;
done_testing();
