# The file of the library is replaced while the server runs, as `make install` and dpkg do
# it: processes go on with the one that the server was started with, new ones and those
# after a crash as well, until the server is restarted.

use strict;
use warnings;

use File::Copy;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;
use Versions;

my $this = this_version();
my $redis = RedisServer->new;
$redis->start;

# A PostgreSQL whose files may be replaced.
system_or_bail('cp', '-al', "$ENV{PRIVATE}/pg", "$ENV{PRIVATE}/replaced");
my $node = new_server('main', 'replaced', $redis, 'restart_after_crash = on');

$node->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
$node->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v int);
	INSERT INTO item SELECT i, 0 FROM generate_series(1, 9) i;
	SELECT uncache.attach('item', 'item:{id}')});
ok(delivered($node), 'the server delivers');
my $session = $node->background_psql('postgres');
$session->query_safe('UPDATE item SET v = 1 WHERE id = 1');

sub deletes
{
	my ($where, $what) = @_;
	my $sql = 'UPDATE item SET v = v + 1 WHERE id = 2';

	$redis->fill('item:2');
	$where->isa('PostgreSQL::Test::Cluster') ? $where->safe_psql('postgres', $sql)
		: $where->query_safe($sql);
	ok(!$redis->has('item:2'), $what);
	return;
}

sub version_is
{
	my ($version, $what) = @_;

	is($node->safe_psql('postgres', 'SELECT uncache.version(), version FROM uncache.stat'),
		"$version|$version", $what);
	return;
}

# A new file takes the place of the old one.
my $library = $node->config_data('--pkglibdir') . '/pg_uncache.so';
my $extension = $node->config_data('--sharedir') . '/extension';
(my $newer = "$ENV{PRIVATE}/newer$ENV{UPGRADE_BELOW}") =~ s{//}{/}g;
my $inode = (stat $library)[1];
copy("$newer/lib/pg_uncache.so", "$library.new") or BAIL_OUT("no newer library: $!");
rename "$library.new", $library or BAIL_OUT("$!");
isnt((stat $library)[1], $inode, 'the file is another one');
(my $share = $extension) =~ s{^\Q$ENV{PRIVATE}\E/replaced}{$ENV{PRIVATE}/newer};
system_or_bail('cp', '--remove-destination', glob("$share/pg_uncache*"), $extension);

deletes($session, 'a session from before goes on');
deletes($node, 'a new session, too');
version_is($this, 'with the library that the server has');
my $worker = $node->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok(comes_true($node, "SELECT worker_pid <> $worker FROM uncache.stat"), 'a new worker');
deletes($node, 'it delivers');
$worker = $node->safe_psql('postgres', 'SELECT worker_pid FROM uncache.stat');
kill 'KILL', $worker;
ok(comes_true($node, "SELECT worker_pid <> $worker AND state = 'connected' FROM uncache.stat"),
	'after a crash, in which the server starts all processes anew');
deletes($node, 'delivery goes on');
version_is($this, 'with the library that the server has');
is($node->safe_psql('postgres', 'SELECT last_error IS NULL FROM uncache.stat'), 't',
	'and nothing to be said');

# ALTER EXTENSION before the restart: the wrong order, which works as well.
$node->safe_psql('postgres', 'ALTER EXTENSION pg_uncache UPDATE');
ok(comes_true($node, "SELECT last_error LIKE 'library pg_uncache is version $this, the extension"
	. " in this database is version 1.99: install the library%' FROM uncache.stat"),
	'objects that are newer than the library: last_error says it');
deletes($node, 'delivery goes on');
$node->restart;
version_is('1.99', 'a restart brings the new one');
ok(comes_true($node, q{SELECT last_error IS NULL AND state = 'connected' FROM uncache.stat}),
	'and last_error is empty');
deletes($node, 'it delivers');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'nothing bad in the log');

$node->stop;
done_testing();
