# Two things happen to a row at the same time: one target forgets what it was sent
# while another one hangs, is lost, refuses, or is away.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisProxy;
use RedisServer;
use Uncache;

# The second saves on request only; so it is made to forget.
my ($near, $far, $third) = map { RedisServer->new } 1 .. 3;
$_->start foreach $near, $far, $third;
my ($to_near, $to_far) = map { RedisProxy->new($_) } $near, $far;
$near->cli('acl', 'setuser', 'worker', 'on', '>secret', '~[^f]*', '+@all');
my $near_url = 'unix://worker:secret@' . substr $to_near->url, 7;
my $node = new_node('main', undef, "uncache.redis_url = '$near_url " . $to_far->url . q{'},
	'uncache.wait_timeout = 30min', 'uncache.command_timeout = 60s');
my $number = 0;

sub sql { return $node->safe_psql('postgres', @_) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

sub invalidate
{
	return 'SELECT uncache.invalidate_keys(VARIADIC ARRAY[' . join(', ', map { "'$_'" } @_) . ']);';
}

sub send_keys { return sql('SET uncache.wait_timeout = 0;' . invalidate(@_)) }

# Whether a target takes part: it is sent what is committed now.  What was sent before
# its link was there is held up with the other's part, so there is a new key each time.
sub is_served
{
	my ($redis) = @_;

	return poll_until(sub {
		my $key = 'probe:' . ++$number;

		$redis->fill($key);
		send_keys($key);
		return poll_until(sub { !$redis->has($key) }, 0.5);
	});
}

# The second comes back with all that it has saved.
sub forget
{
	$far->kill9;
	$far->start;
	return is_served($far);
}

sub lose_link
{
	my ($proxy) = @_;

	$proxy->refuse;
	$proxy->reset;
	return;
}

ok(wait_for_state($node, 'connected'), 'connected');
ok(is_quiet($node, $near), 'all is quiet');

# --- what one has forgotten waits for the other, which is lost ---

$_->fill('key:1', 'other') foreach $near, $far;
$far->cli('save');
$to_near->hold_word('key:1');
send_keys('key:1');
ok(gone($far, 'key:1'), 'one hangs: the other has its key deleted');
ok(forget(), 'and is started anew, and served');
is($far->has('key:1'), 1, 'with the key, since the row is still under way');
lose_link($to_near);
ok(wait_for_state($node, 'down'), 'the one that hangs is lost');
ok(is_served($far), 'the other goes on');
$to_near->behave;
ok(delivered($node), 'it is back: all is delivered');
is(join(' ', map { $_->keys('key:*') } $near, $far), '', 'the key is gone from both');

# --- what one has forgotten is in a row of which the other has refused a key ---

ok(is_quiet($node, $near), 'all is quiet');
$_->fill('key:2', 'forbidden') foreach $near, $far;
$far->cli('save');
$to_near->hold_word('forbidden');
send_keys('key:2', 'forbidden');
ok(gone($far, 'key:2'), 'one hangs: the other has its keys deleted');
ok(forget(), 'and is started anew, and served');
$to_near->behave;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM uncache.backlog
	WHERE attempts > 0'), 'the one that has hung refuses a key');
ok(gone($far, $_), 'the other has the row sent again') foreach 'key:2', 'forbidden';
ok(gone($near, 'key:2'), 'what the first has not refused is gone');
is($near->has('forbidden'), 1, 'what it has is not');
$near->cli('acl', 'setuser', 'worker', '~*');
ok(delivered($node), 'when it may be deleted, it is');

# --- what was answered, forgotten and then lost answers nobody a second time ---

# Too long for one row of the outbox together, and commands are of one rule.
my %key = map { $_ => "$_:" . 'x' x 5000 } qw(held other);
foreach my $table (sort keys %key)
{
	sql("CREATE TABLE $table (k text, v int); INSERT INTO $table VALUES (repeat('x', 5000), 0);
		SELECT uncache.attach('$table', '$table:{k}')");
}
ok(delivered($node) && is_quiet($node, $near), 'all is quiet');
$_->fill(values %key) foreach $near, $far;
$far->cli('save');
$to_near->hold_word($key{held});
my $waiting = start_psql($node, 'BEGIN; UPDATE held SET v = 1; UPDATE other SET v = 1; COMMIT');
ok(gone($near, $key{other}) && gone($far, $key{held}),
	'of a transaction of two rows one hangs at one target');
ok(poll_until(sub { stat_of('waiting_backends') eq '1' }), 'it is waited for');
$to_far->hold_word($key{other});
$far->kill9;
$far->start;
ok(poll_until(sub { $to_far->held > 0 }),
	'the other is started anew, and is sent the row again that was answered');
lose_link($to_far);
ok(wait_for_state($node, 'down'), 'but is lost before it has answered');
$to_far->behave;
ok(gone($far, $key{other}), 'it is back: it is sent once more');
ok(is_served($far), 'and all that comes after it');
ok($waiting->runs, 'who waits for the other row still does');
is(stat_of('waiting_backends'), '1', 'as is shown');
$to_near->behave;
is($waiting->finish . $waiting->err, '0', 'the other answers: so it ends');
ok(delivered($node), 'all is delivered');

# --- a target comes back while a pattern is under way, and another one is away ---

sql(q{ALTER SYSTEM SET uncache.redis_url = '} . join(' ', $near_url, $to_far->url,
	$third->url) . q{'});
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT redis LIKE '%} . $third->socket
	. q{%' AND state = 'connected' FROM uncache.stat}), 'three targets');
ok(is_quiet($node, $near), 'all is quiet');
$_->fill('pattern:1') foreach $near, $far;
$far->cli('save');
$_->kill9 foreach $far, $third;
ok(wait_for_state($node, 'down'), 'two are away');
$to_near->hold_word('SCAN');
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
ok(poll_until(sub { $to_near->held > 0 }), 'a pattern is under way at the third');
$far->start;
# Nothing shall be lost but the pattern: it would have all sent again.
ok(is_quiet($node, $far) && is_served($far), 'one comes back meanwhile');
is($far->has('pattern:1'), 1, 'with a key that the pattern covers');
$to_near->behave;
ok(gone($near, 'pattern:1'), 'the pattern is carried out where it was under way');
ok(gone($far, 'pattern:1'), 'and where it was not, though one is still away');
is(sql(q{SELECT uncache.wait('200 ms')}), 'f', 'for which it waits');
$third->start;
ok(delivered($node), 'when that is back, all is delivered');

# --- the addresses change while parts of a row are refused, lost, and scanned for ---

my $worker = worker_pid($node);
$near->cli('acl', 'setuser', 'worker', 'resetkeys', '~[^f]*');
$_->fill('key:3', 'forbidden:2', 'pattern:2') foreach $near, $far;
$to_far->hold_word('forbidden:2');
send_keys('key:3', 'forbidden:2');
ok(gone($near, 'key:3') && poll_until(sub { $to_far->held > 0 }),
	'a row is refused by one target, and held by the next');
sql(q{SELECT uncache.invalidate_pattern('pattern:*')});
$near->cli('acl', 'setuser', 'worker', '~*');
sql(q{ALTER SYSTEM SET uncache.redis_url = '} . join(' ', map { $_->url } $near, $far) . q{'});
$node->reload;
ok(delivered($node), 'the addresses change: all is delivered');
is(join(' ', map { ($near->keys($_), $far->keys($_)) } qw(key:* pattern:* forbidden*)), '',
	'and gone');
is(worker_pid($node), $worker, 'by the worker of before');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');
$node->stop;
done_testing();
