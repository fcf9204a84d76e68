# Redis Cluster in trouble: masters that die or hang, slots that move, with and
# without load.  Nothing that a committed transaction touched is left in the end,
# nothing else is gone, and who has no key at a node in trouble does not notice.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use Load;
use RedisCluster;
use Uncache;

my $rows = 20000;
my $redis = RedisCluster->new(options => [ '--cluster-require-full-coverage', 'no',
	'--enable-debug-command', 'local' ]);
my $node = new_node('main', $redis, 'uncache.command_timeout = 500ms',
	'uncache.wait_timeout = 100ms');

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }
sub invalidate { return 'SELECT uncache.invalidate_keys(' . join(', ', map { "'$_'" } @_) . ');' }

my $load = Load->new($node, $rows);
ok(wait_for_state($node, 'connected'), 'the worker is connected');
ok(delivered($node), 'and up to date');
$redis->fill_range('item:', 1, $rows);
$redis->wait_until_ok;

# ------------------------------------------------------------------------
# Under load
# ------------------------------------------------------------------------

$load->start;

# A hundred commits more, whatever Redis does, and a pattern.
my $patterns = 0;

sub go_on
{
	my ($when) = @_;

	$patterns++;
	sql("SELECT uncache.invalidate_pattern('pattern:$patterns:*')");
	$load->go_on($when);
	return;
}

# Keys for the patterns to come, and some that none is for.
$redis->fill_range("pattern:$_:", 1, 50) foreach 0 .. 12;

go_on('at first');

# What the master has taken last never reaches the replica: not even what was on
# its way, since the link is cut.
my ($first) = $redis->masters;
my ($replica) = $redis->replicas_of($first);
$redis->freeze($replica);
$redis->server($first)->cli(qw(client kill type replica));
go_on('replica stopped');
$redis->kill9($first);
$redis->thaw($replica);
go_on('master killed');
is($redis->wait_for_failover($first), $replica, 'a killed master is replaced');
go_on('replaced');
$redis->start($first);
$redis->wait_until_ok;
go_on('the old one is back');

my (undef, $second) = $redis->masters;
$redis->freeze($second);
go_on('master hangs');
$redis->wait_for_failover($second);
go_on('replaced');
$redis->thaw($second);
$redis->wait_until_ok;
go_on('the old one wakes up');

$redis->fail_over(($redis->masters)[2]);
go_on('a failover in good order');

# Slots move to a new master: some at once, some stay on the way for a while.
my $new = $redis->add_master;
my @moving = map { $redis->slot("item:$_") } 1 .. 30;
my %seen;
@moving = grep { !$seen{$_}++ } @moving;
foreach my $slot (@moving[ 0 .. 9 ])
{
	$redis->begin_move($slot, $new);
	my @keys = grep { $redis->slot($_) == $slot } map { "item:$_" } 1 .. 30;
	$redis->move_keys($slot, @keys);
}
go_on('slots on the way');
foreach my $slot (@moving[ 0 .. 9 ])
{
	$redis->move_keys($slot);
	$redis->end_move($slot);
}
$redis->move_slots($new, @moving[ 10 .. $#moving ]);
go_on('slots moved');

$load->end;
$redis->wait_until_ok;
ok(wait_for_state($node, 'connected'), 'the worker is connected');
ok(delivered($node), 'everything is delivered');

$load->check([ $redis->keys('item:*') ], 500);
cmp_ok($patterns, '<=', 12, 'there were keys for each pattern');
is(join(' ', $redis->keys('pattern:*')),
	join(' ', sort map { my $n = $_; map { "pattern:$n:$_" } 1 .. 50 } 0, $patterns + 1 .. 12),
	'what the patterns are for is gone, and nothing else');

# ------------------------------------------------------------------------
# Slots on the move
# ------------------------------------------------------------------------

sql(q{ALTER SYSTEM SET uncache.wait_timeout = '20s'});
$node->reload;
$redis->move_slots($new, $redis->slot('{moved}'));
my ($a) = grep { $_ ne $new } $redis->masters;
my ($b) = grep { $_ ne $new && $_ ne $a } $redis->masters;

# present(KEY...): those of them that are at any master.
sub present
{
	my %there = map { $_ => 1 } $redis->keys;

	return join ' ', grep { $there{$_} } @_;
}

# The slot is left half on the way: some of its keys are here and some there.
my ($tag) = $redis->keys_at($a, 'half', 1);
my @tagged = map { "{$tag}:$_" } 1 .. 6;
my $slot = $redis->slot($tag);
$redis->fill(@tagged);
$redis->begin_move($slot, $b);
$redis->move_keys($slot, @tagged[ 0 .. 2 ]);
my (undef, undef, $err) = $node->psql('postgres', invalidate($tagged[0]));
is(present(@tagged) . $err, join(' ', @tagged[ 1 .. 5 ]), 'ASK: the key is deleted where it is');
(undef, undef, $err) = $node->psql('postgres', invalidate($tagged[3]));
is(present(@tagged) . $err, join(' ', @tagged[ 1, 2, 4, 5 ]),
	'one that has not moved yet is deleted, too');
(undef, undef, $err) = $node->psql('postgres', invalidate(@tagged[ 1, 4 ]));
is(present(@tagged) . $err, join(' ', @tagged[ 2, 5 ]),
	'TRYAGAIN: two that are here and there are deleted, without waiting for the end of the move');
sql("SELECT uncache.invalidate_pattern('{half*')");
ok(delivered($node), 'a pattern is delivered');
is(present(@tagged), '', 'and deletes keys on both sides');
$redis->end_move($slot);
$redis->wait_until_ok;

# MOVED: nobody has told the worker.
my @keys = map { $redis->keys_at($_, 'moved:', 10) } $a, $b;
$redis->fill(@keys);
$redis->move_slots($new,
	do { my %slots = map { $redis->slot($_) => 1 } @keys[ 0 .. 4, 10 .. 14 ]; keys %slots });
(undef, undef, $err) = $node->psql('postgres', invalidate(@keys));
is(present(@keys) . $err, '', 'MOVED: the keys are deleted where they are now');
$redis->wait_until_ok;

# Two masters, each of which takes the other one for the owner of a slot: it can't be
# sent, but is tried again about once a second, however long that lasts.
my ($between) = grep { $redis->server($a)->cli('cluster', 'countkeysinslot',
	$redis->slot($_)) eq '0' } $redis->keys_at($a, 'between', 20);
sub take_for_owner
{
	return $redis->server($a)->cli('cluster', 'setslot', $redis->slot($between), 'node',
		$redis->server($_[0])->cli('cluster', 'myid'));
}

is(take_for_owner($b), 'OK', 'a master takes another one for the owner of a slot');
sql("SET uncache.wait_timeout = 0; " . invalidate($between));
my $retries = sql('SELECT retries FROM uncache.stat');
ok(poll_until(sub { sql('SELECT retries FROM uncache.stat') > $retries + 20 }),
	'what nobody takes is sent again and again')
  or diag join "\n", map { $redis->server($_)->cli('cluster', 'nodes') } $a, $b;
is(take_for_owner($a), 'OK', 'the owner takes it back');
ok(delivered($node), 'and what has waited is delivered');
$redis->wait_until_ok;

# A key moves from a master that is not scanned yet to one that is: the master is
# busy while SCAN and MIGRATE come, and carries out MIGRATE first.  The third one
# is busy for longer, so that the pass is not over when the map changes.
sql(q{ALTER SYSTEM SET uncache.command_timeout = '10s'});
$node->reload;
foreach my $changes (1, 0)
{
	my ($key) = $redis->keys_at($a, 'scanned:', 1);
	my ($sign) = $redis->keys_at($b, 'scanned:', 1);
	my $slot = $redis->slot($key);

	$redis->fill($key, $sign);
	$redis->begin_move($slot, $b);
	my $first = $redis->pipeline($a, 'debug sleep 0.5',
		"migrate 127.0.0.1 $b \"\" 0 5000 keys $key");
	my $last = $redis->pipeline($new, 'debug sleep 1');
	sql(q{SELECT uncache.invalidate_pattern('scanned:*')});
	ok(poll_until(sub { $redis->server($b)->cli('exists', $sign) eq '0' }),
		'a pattern has scanned one master');
	is($first->answers, 'OK OK', 'a key moves there from another');
	$redis->end_move($slot) if $changes;
	is($last->answers, 'OK', 'before the third is scanned');
	ok(delivered($node), 'the pattern is delivered');
	is(present($key), '', 'and the key is gone, '
		. ($changes ? 'since the map has changed' : 'though the map has not changed'));
	$redis->end_move($slot) unless $changes;
	$redis->wait_until_ok;
}

# ------------------------------------------------------------------------
# A master without a replica is away
# ------------------------------------------------------------------------

my ($lost, $held, @more) = $redis->keys_at($new, 'away:', 200);
my ($here) = $redis->keys_at($a, 'here:', 1);

# Commits a key elsewhere: at once, without a warning, and the key is gone.
sub is_undisturbed
{
	my ($when) = @_;

	$redis->server($a)->cli('set', $here, 1);
	my ($status, undef, $err) = $node->psql('postgres', invalidate($here));
	is("$status$err", '0', "$when: others commit without a warning");
	ok(!$redis->server($a)->has($here), 'and their keys are gone');
	return;
}

sql(q{ALTER SYSTEM SET uncache.wait_timeout = '60s'});
$node->reload;
$redis->fill($lost, $held, @more);
$redis->freeze($new);
my $waiting = start_psql($node, invalidate($held));
ok($node->poll_query_until('postgres', 'SELECT waiting_backends = 1 FROM uncache.stat'),
	'a master hangs: a session waits for its key');
is_undisturbed('it hangs');
$node->psql('postgres', "SET uncache.wait_timeout = 0; " . invalidate($lost, $here));
$redis->thaw($new);
is($waiting->finish, 0, 'the master wakes up: the session goes on');
ok(delivered($node), 'all is delivered');
is(present($lost, $held), '', 'and the keys are gone');

# Of a transaction of several rows only the last has a key for the master that hangs.
# The others are deleted a second time meanwhile: that answers for them alone.
sql(q{ALTER SYSTEM SET uncache.command_timeout = '60s'});
sql(q{ALTER SYSTEM SET uncache.second_delete_delay = '2s'});
$node->reload;
my @many = $redis->keys_at($a, 'many:' . 'x' x 90 . ':', 300);
$redis->fill($many[0], $held);
$redis->freeze($new);
$waiting = start_psql($node, 'SELECT uncache.invalidate_keys(VARIADIC ARRAY['
	. join(', ', map { "'$_'" } @many, $held) . '])');
ok(gone($redis->server($a), $many[0]), 'the first rows of a transaction are delivered');
$redis->server($a)->cli('set', $many[0], 1);
ok(gone($redis->server($a), $many[0]), 'and their keys are deleted a second time');
is(stat_of('waiting_backends'), '1', 'who waits for the last row still does');
$redis->thaw($new);
is($waiting->finish . $waiting->err, '0', 'the master wakes up: the session goes on');
is(present($held), '', 'and the last key is gone');
sql(q{ALTER SYSTEM RESET uncache.second_delete_delay});
sql(q{ALTER SYSTEM RESET uncache.command_timeout});
$node->reload;

# The numbers of the worker's connections.
sub links
{
	my @numbers = map { /^id=(\d+).* name=pg_uncache / ? $1 : () } split /\n/,
		$redis->server($_[0])->cli(qw(client list));

	return @numbers;
}

# A master comes back while a pass of patterns goes on that has begun without it.
$redis->fill(map { ($redis->keys_at($_, 'slow:', 1))[0] } $a, $b, $new);
$redis->freeze($new);
my %old = map { $_ => { map { $_ => 1 } links($_) } } $a, $b;
sql(q{ALTER SYSTEM SET uncache.connect_timeout = '10s'});
$node->reload;
foreach my $port ($a, $b)
{
	ok(poll_until(sub { my @now = links($port); @now && !grep { $old{$port}{$_} } @now }),
		'all links are new');
}
is_undisturbed('one of them is not there yet');
my $busy = $redis->pipeline($a, 'debug sleep 0.4');
sql(q{SELECT uncache.invalidate_pattern('slow:*')});
ok(poll_until(sub { !(map { $redis->server($_)->keys('slow:*') } $b) }), 'a pass has begun');
$redis->thaw($new);
is($busy->answers, 'OK', 'and goes on');
ok(delivered($node), 'the pattern is delivered');
is(join(' ', $redis->keys('slow:*')), '', 'everywhere');
sql(q{ALTER SYSTEM RESET uncache.connect_timeout});
$node->reload;

sql(q{ALTER SYSTEM SET uncache.wait_timeout = '1s'});
$node->reload;
$redis->keep_keys($new);
my ($there) = $redis->keys_at($new, 'both:', 1);
my ($twice) = $redis->keys_at($a, 'twice:', 1);
$redis->fill($lost, $held, @more);
sql(q{ALTER SYSTEM SET uncache.second_delete_delay = '3s'});
$node->reload;
ok(poll_until(sub {
	sql(invalidate($twice));
	$redis->server($a)->cli('set', $twice, 1);
	return poll_until(sub { !present($twice) }, 10);
}), 'keys are deleted a second time');
sql('BEGIN; ' . invalidate($twice, $there) . 'COMMIT');
$redis->server($a)->cli('set', $twice, 1);
$redis->kill9($new);
ok(poll_until(sub { stat_of('last_error') =~ /127\.0\.0\.1:$new/ }),
	'a master is killed: the error names it');
is_undisturbed('it is away');
(undef, undef, $err) = $node->psql('postgres', invalidate($lost, $here) . invalidate($held));
cmp_ok(scalar(() = $err =~ /WARNING/g), '<=', 1,
	'its own keys: commits go on, with one warning at most');
is_undisturbed('now');
cmp_ok(sql('SELECT count(*) FROM uncache.backlog'), '>=', 2, 'two transactions are undelivered');

# What the others have got is not sent to them again when it is back.
{
	my ($elsewhere) = $redis->keys_at($a, 'both:', 1);

	ok(is_quiet($node, $redis->server($a)), 'all is quiet');
	my $twice_is_gone = sub { $redis->server($a)->cli('exists', $twice) eq '0' };
	ok(poll_until($twice_is_gone), 'a second delete for it, too, is made elsewhere');
	$redis->server($a)->cli('set', $twice, 1);
	ok(!poll_until($twice_is_gone, 4), 'but not again and again');
	sql(q{ALTER SYSTEM RESET uncache.second_delete_delay});
	$node->reload;
	$redis->server($a)->cli('set', $elsewhere, 1);
	sql('SET uncache.wait_timeout = 0; ' . invalidate($there, $elsewhere));
	ok(gone($redis->server($a), $elsewhere),
		'a transaction with keys there and elsewhere: elsewhere they are deleted');
	$redis->server($a)->cli('set', $elsewhere, 1);
	$redis->start($new);
	$redis->wait_until_ok;
	ok(delivered($node), 'it is back: all is delivered');
	is(present($lost, $held, $elsewhere), $elsewhere,
		'and gone there; what was stored elsewhere meanwhile stays');
	$redis->fill($lost, $held);
	$redis->kill9($new);
	ok($node->poll_query_until('postgres', q{SELECT state = 'down' FROM uncache.stat}),
		'it is killed again');
	sql('SET uncache.wait_timeout = 0; ' . invalidate($lost, $held));
}

# Many transactions for it; a pattern, which goes on elsewhere.
sql(q{SET uncache.wait_timeout = 0;
	DO $$ BEGIN FOR i IN 1 .. 20 LOOP
		} . join('', map { 'PERFORM ' . (invalidate($_) =~ s/^SELECT //r) . ' COMMIT;' } @more) . q{
	END LOOP; END $$});
is_undisturbed('thousands of its transactions wait');
$redis->server($_)->cli('set', ($redis->keys_at($_, 'pattern:', 1))[0], 1) foreach $a, $b;
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
ok(poll_until(sub { !(map { $redis->server($_)->keys('pattern:*') } $a, $b) }),
	'a pattern is carried out at the others');
is_undisturbed('then');
is(sql(q{SELECT uncache.wait('200 ms')}), 'f', 'while all of that is not delivered');
my $worker = stat_of('worker_pid');
sql("SELECT pg_terminate_backend($worker)");
$redis->server($a)->cli('set', $here, 1);
sql(invalidate($here));
ok(gone($redis->server($a), $here), 'a new worker takes over');
isnt(stat_of('worker_pid'), $worker, 'it is another one');
is_undisturbed('the new worker');
$node->append_conf('postgresql.conf', 'uncache.delivery = off');
$node->reload;
ok(wait_for_state($node, 'paused'), 'paused');
$redis->start($new);
is(present($lost, $held, @more), join(' ', $lost, $held, @more),
	'the master is back, with its keys');
$node->append_conf('postgresql.conf', 'uncache.delivery = on');
$node->reload;
$redis->wait_until_ok;
ok(delivered($node), 'everything is delivered');
is(present($lost, $held, @more), '', 'and all its keys are gone');
is(join(' ', $redis->keys('pattern:*')), '', 'and those of the pattern');

# ------------------------------------------------------------------------
# CLUSTERDOWN
# ------------------------------------------------------------------------

$redis->server($_)->cli(qw(config set cluster-require-full-coverage yes)) foreach $redis->ports;
$redis->fill($lost, $here);
$redis->freeze($new);
$redis->wait_for_state('fail');
(undef, undef, $err) = $node->psql('postgres', invalidate($here) x 10);
cmp_ok(scalar(() = $err =~ /WARNING/g), '<=', 1,
	'the cluster is down: commits go on, with one warning at most');
# Looked at once: in turn with it there is the error of the node that hangs.
my $down;
ok(poll_until(sub { ($down = stat_of('last_error')) =~ /CLUSTERDOWN/ }),
	'the error says so') or diag $down;
like($down, qr{^redis\+cluster://\S+: the Redis Cluster is down},
	'and names the cluster, not a node that is well') or diag $down;
$redis->thaw($new);
$redis->wait_until_ok;
ok(delivered($node), 'it is up again: everything is delivered');
ok(!$redis->has($here), 'and gone');
ok(poll_until(sub { stat_of('state') eq 'connected' }), 'the worker is connected');
ok(poll_until(sub { $node->psql('postgres', invalidate($here), stderr => \$err); $err eq '' }),
	'and sessions wait again');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
