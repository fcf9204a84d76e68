# Several targets: a transaction is delivered when all of them have answered; one
# that is away neither stops the others nor loses anything.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Fence;
use RedisCluster;
use RedisServer;
use Uncache;

# They keep their keys when they are killed.
my ($near, $far, $third) = map { RedisServer->new_durable } 1 .. 3;
$_->start foreach $near, $far, $third;
my $node = new_node('main', undef, q{uncache.redis_url = '} . $near->url . '  ' . $far->url . q{'},
	'uncache.wait_timeout = 1s', 'uncache.command_timeout = 500ms');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub invalidate { return 'SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @_) . ');' }

sub set_targets
{
	my @urls = map { ref $_ ? $_->url : $_ } @_;

	sql(q{ALTER SYSTEM SET uncache.redis_url = '} . join("\t ", @urls) . q{'});
	$node->reload;
	return;
}

# present(KEY, TARGET...): 1 or 0 for each.
sub present
{
	my ($key, @targets) = @_;

	return join ' ', map { $_->has($key) ? 1 : 0 } @targets;
}

sub fill_all
{
	my @keys = @_;

	foreach my $redis ($near, $far, $third)
	{
		$redis->fill(@keys) if defined $redis->pid;
	}
	return;
}

# --- all are well ---

ok(wait_for_state($node, 'connected'), 'connected');
my ($near_socket, $far_socket) = map { $_->socket } $near, $far;
like(stat_of('redis'), qr/\Q$near_socket\E\s.*\Q$far_socket\E/, 'uncache.stat shows both');
fill_all('key:1', 'other');
sql(invalidate('key:1'));
is(present('key:1', $near, $far), '0 0', 'after COMMIT the key is gone from both');
is(present('other', $near, $far), '1 1', 'and no other');
is(present('key:1', $third), '1', 'a Redis that is not in the list is left alone');
fill_all(map { "p:$_" } 1 .. 100);
sql(q{SELECT uncache.invalidate_pattern('p:*')});
ok(delivered($node), 'a pattern is delivered');
is(join(' ', map { $_->keys('p:*') } $near, $far), '', 'and carried out at both');
is(stat_of('wait_timeouts'), '0', 'nobody has waited in vain');

# --- one hangs ---

foreach my $case ([ $near, $far ], [ $far, $near ])
{
	my ($away, $there) = @$case;
	my $name = $away == $near ? 'the first' : 'the second';

	fill_all(qw(key:1 key:2 p:1));
	$away->freeze;
	my ($status, undef, $err) = $node->psql('postgres', invalidate('key:1') x 5);
	is($status, 0, "$name hangs: commits go on");
	cmp_ok(scalar(() = $err =~ /WARNING/g), '<=', 1, 'with one warning at most');
	ok(gone($there, 'key:1'), 'the other is served');
	sql(q{SET uncache.wait_timeout = 0; } . invalidate('key:2')
		. q{SELECT uncache.invalidate_pattern('p:*')});
	ok(gone($there, 'key:2'), 'and goes on to be');
	ok(gone($there, 'p:1'), 'by patterns, too');
	is(sql(q{SELECT uncache.wait('200 ms')}), 'f', 'but nothing of it counts as delivered');
	isnt(sql('SELECT count(*) FROM uncache.backlog'), '0', 'and the backlog says so');
	$away->thaw;
	ok(delivered($node), 'it wakes up: all is delivered');
	is(join(' ', map { present($_, $near, $far) } qw(key:1 key:2 p:1)), '0 0 0 0 0 0',
		'and gone from both');
}

# --- one is down, and everything else is restarted meanwhile ---

my $count = 3000;
$_->fill_range('many:', 1, $count) foreach $near, $far;
$far->kill9;
ok(poll_until(sub { stat_of('last_error') =~ /\Q$far_socket\E/ }),
	'one is killed: the error names it');
sql(qq{SET uncache.wait_timeout = 0;
	DO \$\$ BEGIN FOR i IN 1 .. $count - 1 LOOP PERFORM uncache.invalidate_keys('many:' || i);
		COMMIT; END LOOP; END \$\$});
ok(poll_until(sub { join(' ', $near->keys('many:*')) eq "many:$count" }),
	'the other has all keys deleted');
fill_all('key:3');
my $worker = stat_of('worker_pid');
sql("SELECT pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres', "SELECT worker_pid <> $worker FROM uncache.stat"),
	'the worker is restarted');
sql('SET uncache.wait_timeout = 0;' . invalidate('key:3'));
ok(gone($near, 'key:3'), 'the other is served');
$node->stop('immediate');
$node->start;
fill_all('key:4');
sql('SET uncache.wait_timeout = 0;' . invalidate('key:4'));
ok(gone($near, 'key:4'), 'and so it is after a crash of the server');
$node->restart;
fill_all('key:5');
sql('SET uncache.wait_timeout = 0;' . invalidate('key:5'));
ok(gone($near, 'key:5'), 'and after a restart');
is(sql(q{SELECT uncache.wait('200 ms')}), 'f', 'still not delivered');
sql('ALTER SYSTEM SET uncache.delivery = off');
$node->reload;
ok(wait_for_state($node, 'paused'), 'paused');
$far->start;
is(scalar(my @left = $far->keys('many:*')), $count, 'the other one is back, with all its keys');
sql('ALTER SYSTEM SET uncache.delivery = on');
$node->reload;
ok(delivered($node), 'now all is delivered');
is(join(' ', $far->keys('many:*')), "many:$count", 'and gone from it as well');
is(present("many:$count", $near), '1', 'nothing else was deleted');
ok($node->poll_query_until('postgres', q{SELECT state = 'connected' FROM uncache.stat}),
	'connected');
fill_all('key:6');
my (undef, undef, $err) = $node->psql('postgres',
	'SET uncache.wait_timeout = 60000;' . invalidate('key:6'));
is(present('key:6', $near, $far) . $err, '0 0', 'COMMIT waits for both again');

# --- what one has got is not sent to it again when the other is back ---

foreach my $how ('hangs', 'is killed')
{
	my @keys = map { "kept:$_" } 1 .. 20;

	fill_all(@keys, qw(window pattern:1));
	sql(invalidate('window'));
	ok(is_quiet($node, $near), 'all is quiet');
	$how eq 'hangs' ? $far->freeze : $far->kill9;
	$node->psql('postgres', invalidate($keys[0]));
	ok(wait_for_state($node, 'down'), "one $how, and is given up");
	sql(q{SET uncache.wait_timeout = 0; SELECT uncache.invalidate_pattern('pattern:*');} . join '',
		map { invalidate($_) } @keys);
	ok(poll_until(sub { !(map { $near->keys($_) } 'kept:*', 'pattern:*') }), 'the other is served');
	# As readers do; they have read what was committed.
	$near->fill(@keys, 'window');
	$how eq 'hangs' ? $far->thaw : $far->start;
	ok(delivered($node), 'it is back: all is delivered');
	is(join(' ', map { $far->keys("$_*") } qw(kept: pattern: window)), '', 'and gone from it');
	is(join(' ', $near->keys('kept:*'), $near->keys('window')), join(' ', sort(@keys), 'window'),
		'what readers have stored in the other stays');
}

# Both down, and back one by one.
fill_all('key:7');
$_->kill9 foreach $near, $far;
sql('SET uncache.wait_timeout = 0;' . invalidate('key:7'));
$far->start;
ok(gone($far, 'key:7'), 'both down: the one that is back first is served first');
$near->start;
ok(delivered($node), 'then the other');
is(present('key:7', $near, $far), '0 0', 'all gone');

# One refuses a key while the other is away: with the other back it is not done.
$near->cli('acl', 'setuser', 'worker', 'on', '>secret', '~[^f]*', '+@all');
set_targets('unix://worker:secret@' . $near->socket, $far);
ok(poll_until(sub { $near->cli('client', 'list') =~ /user=worker/ }),
	'one may delete all keys but one');
ok(wait_for_state($node, 'connected'), 'connected');
fill_all('forbidden', 'key:7');
$far->kill9;
ok(wait_for_state($node, 'down'), 'the other is away');
sql('SET uncache.wait_timeout = 0;' . invalidate('forbidden', 'key:7'));
ok(gone($near, 'key:7'), 'what may be deleted is');
$far->start;
ok(gone($far, 'forbidden') && gone($far, 'key:7'), 'the other is back: its keys are gone');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM uncache.backlog
	WHERE attempts > 0'), 'the refused one is in the backlog');
is(present('forbidden', $near), '1', 'and there');
$near->cli('acl', 'setuser', 'worker', '~forbidden');
ok(gone($near, 'forbidden'), 'when it may be deleted, it is');
set_targets($near, $far);
ok(poll_until(sub { $near->cli('client', 'list') !~ /user=worker/ }), 'the user of before');
ok(wait_for_state($node, 'connected'), 'is connected');

# --- the list is changed ---

$far->kill9;
fill_all('key:8');
sql('SET uncache.wait_timeout = 0;' . invalidate('key:8'));
set_targets($near);
ok(delivered($node), 'a target that is down is taken out of the list: delivered without it');
is(present('key:8', $near), '0', 'gone from the one that is left');
set_targets($near, $third);
ok(wait_for_state($node, 'connected'), 'another one is put in');
fill_all('key:9');
sql(invalidate('key:9'));
ok(delivered($node), 'delivered');
is(present('key:9', $near, $third), '0 0', 'and gone from both');
$far->start;
$far->fill('key:9');
set_targets($third, $far, $near);
ok($node->poll_query_until('postgres', qq{SELECT redis LIKE '%$far_socket%' FROM uncache.stat}),
	'the first one comes last in another order');
fill_all('key:10');
sql(invalidate('key:10'));
ok(delivered($node), 'delivered');
is(present('key:10', $near, $far, $third), '0 0 0', 'and gone from three');

foreach my $bad ('redis://a redis:/b', 'redis://a redis://:secret@', 'redis://a http://b')
{
	my ($status, undef, $err) = $node->psql('postgres',
		"ALTER SYSTEM SET uncache.redis_url = '$bad'");
	isnt($status, 0, 'an address that is none is refused');
	unlike($err, qr/secret@(?!')/, 'without showing a password') if $bad =~ /secret/
		&& $err !~ /STATEMENT/;
}

# --- fenced fills: each target by itself ---

set_targets($near, $far);
make_item($node);
sql(q{ALTER SYSTEM SET uncache.fence_ttl = '5min'});
$node->reload;
ok(fence_is_on($node), 'the fence is on');
my $reader = $node->background_psql('postgres');
# It stays for the whole test, however long that takes.
$reader->set_query_timer_restart;
my @looks = map { [ $_, look($reader, miss($_, 'item:1'), 1) ] } $near, $far;
isnt($looks[0][2], $looks[1][2], 'each target has tokens of its own');
sql('UPDATE item SET v = v + 1 WHERE id = 1');
is(fill($_->[0], 'item:1', $_->[2], $_->[1]), '0', 'a late fill is refused') foreach @looks;
ok(becomes_cacheable($_, $node, 1), 'and a new one stored') foreach $near, $far;
sql('UPDATE item SET v = v + 1 WHERE id = 1');
is(cached($_, 'item:1'), '', 'until the next write') foreach $near, $far;
$far->kill9;
sql('SET uncache.wait_timeout = 0; UPDATE item SET v = v + 1 WHERE id = 1');
ok(becomes_cacheable($near, $node, 1, 20), 'with one down the other goes on');
$far->start;
ok(delivered($node), 'it is back');
ok(becomes_cacheable($far, $node, 1, 20), 'and its keys become cacheable, too');
$reader->quit;

# --- a plain Redis and a cluster ---

my $cluster = RedisCluster->new(replicas => 0);
set_targets($near, $cluster);
ok($node->poll_query_until('postgres',
	q{SELECT redis LIKE '%redis+cluster:%' AND state = 'connected' FROM uncache.stat}),
	'a plain Redis and a cluster') or diag stat_of('redis');
my @keys = map { $cluster->keys_at($_, 'mixed:', 3) } $cluster->masters;
$_->fill(@keys) foreach $near, $cluster;
sql(invalidate(@keys[ 0, 1, 3, 4, 6, 7 ]));
ok(delivered($node), 'delivered');
is(join(' ', $_->keys('mixed:*')), join(' ', sort @keys[ 2, 5, 8 ]), 'keys are deleted in both')
	foreach $near, $cluster;
sql(q{SELECT uncache.invalidate_pattern('mixed:*')});
ok(delivered($node), 'a pattern is delivered');
is(join(' ', $_->keys('mixed:*')), '', 'to both') foreach $near, $cluster;

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
