# Two servers at one Redis with the same system identifier: a copy that was promoted beside
# production, one that was started without promotion, and one of another origin.  Which of
# them fills, what the other says of it, and how it gets the fence back.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $main = PostgreSQL::Test::Cluster->new('main');
$main->init(allows_streaming => 1);
$main->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'pg_uncache'
uncache.redis_url = '} . $redis->url . q{'
uncache.wait_timeout = '10s'
uncache.fence_ttl = '5min'
});
$main->start;
$main->safe_psql('postgres', 'CREATE EXTENSION pg_uncache');
make_item($main);
fence_is_on($main) or die 'the fence does not come on';
$main->backup('base');

sub fence_of { return $_[0]->safe_psql('postgres', 'SELECT fence FROM uncache.stat') }

sub is_fenced
{
	my ($node, $state) = @_;
	return $node->poll_query_until('postgres', "SELECT fence = '$state' FROM uncache.stat");
}

# Readers can fill when what it deletes is deleted, which voids their tokens.
sub reclaim
{
	my ($node) = @_;
	my $answer = $node->safe_psql('postgres', 'SELECT uncache.reclaim_fence()');
	return $answer eq 't' && is_fenced($node, 'on') && delivered($node) ? 't' : "not ($answer)";
}

sub value_of
{
	my ($node, $id) = @_;
	return $node->safe_psql('postgres', "SELECT v FROM item WHERE id = $id");
}

sub warnings_of
{
	my ($node) = @_;
	my @found = slurp_file($node->logfile) =~ /WARNING: .*superseded/g;
	return scalar @found;
}

# Whether a reader of the node gets its own value into the cache, which is empty then.
sub fills
{
	my ($node, $id) = @_;

	$redis->cli('del', "item:$id");
	return read_item($redis, $node, $id);
}

# A copy of the server; started with its own port, and production's redis_url.
sub copy
{
	my ($name, $promote, @conf) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$copy->init_from_backup($main, 'base', has_streaming => 0);
	$copy->append_conf('postgresql.conf', join "\n", @conf, '');
	$copy->set_standby_mode if $promote;
	$copy->start;
	$copy->promote if $promote;
	return $copy;
}

sub epoch { return (split /:/, miss($redis, 'nothing:' . ++$main::misses))[0] }

# --- a copy that supersedes nobody ---

my $idle = copy('idle', 1, 'uncache.delivery = off');
my $elsewhere = copy('elsewhere', 1,
	q{uncache.redis_url = '} . $redis->url . ($redis->url =~ /^unix:/ ? '?db=5' : '/5') . q{'});
ok(is_fenced($elsewhere, 'on'), 'a copy that is promoted, with another database of the same Redis');
ok(is_fenced($main, 'on'), 'production has the fence');
is(fills($main, 1), '1', 'and fills');
$_->stop foreach $idle, $elsewhere;

# --- a copy that is promoted ---

$main->safe_psql('postgres', 'UPDATE item SET v = 10 WHERE id = 1');
my $token = miss($redis, 'item:2');
my ($old_value, $old_snapshot) = look($main, $token, 2);
my $copy = copy('copy', 1);
ok(is_fenced($copy, 'on'), 'a copy is promoted, and takes the fence');
ok(is_fenced($main, 'superseded'), 'production says that it is superseded');
like(fence_stat($main, 'last_error'),
	qr/superseded by a server on timeline 2 .*last seen 20\d\d-.*reclaim_fence\(\)/,
	'last_error says by whom, when it was seen, and the way out');
is(fence_stat($main, 'state'), 'connected', 'it is connected');
is(fill($redis, 'item:2', $old_snapshot, $old_value), '0',
	'what a reader of it had begun is refused');
isnt(fills($main, 1), '1', 'it fills nothing any more');
is(fills($copy, 1), '1', 'the copy does');
is(cached($redis, 'item:1'), '1', 'with its own row');
$main->safe_psql('postgres', 'UPDATE item SET v = 11 WHERE id = 1');
is(cached($redis, 'item:1'), '', 'production goes on delivering, and COMMIT waits for it');
is(fills($copy, 1), '1', 'which is in no way of the readers of the other');
my ($epoch, $retries, $pings) = (epoch(), fence_stat($main, 'retries'), $redis->pings);
$main->safe_psql('postgres',
	'TRUNCATE item; INSERT INTO item SELECT i, 12 FROM generate_series(1, 9) i');
ok(delivered($main), 'a pattern, too, is delivered');
ok(poll_until(sub { $redis->pings >= $pings + 6 }), 'for some pings');
is(epoch(), $epoch, 'it sets no epoch');
is(fence_stat($main, 'retries'), $retries, 'nothing is sent again');
is(warnings_of($main), 1, 'it has said so once in its log');
like(slurp_file($main->logfile),
	qr/WARNING: .*superseded by a server on timeline 2.*\n.*DETAIL: .*last seen at 20\d\d.*\n.*HINT: .*reclaim_fence/,
	'with the timeline of the other, when it was seen, and the way out');
isnt($main->psql('postgres', q{SET uncache.consistency = strict;
	UPDATE item SET v = 0 WHERE id = 9}), 0, 'a strict commit fails');

# --- Redis forgets, or the server is started again: it stays so ---

$copy->stop;
$redis->kill9;
$redis->start;
ok(wait_for_state($main, 'connected'), 'Redis is back, without memory, and without the copy');
ok(is_fenced($main, 'superseded'), 'production is still superseded');
isnt($redis->cli('fcall', 'uncache_get', 1, 'item:1') =~ /\S/, 1, 'no token is handed out');
$main->restart;
ok(is_fenced($main, 'superseded'), 'after a restart, too');
$main->stop('immediate');
$main->start;
ok(is_fenced($main, 'superseded'), 'and after a crash');

# --- reclaimed ---

$copy->start;
ok(is_fenced($copy, 'on'), 'the copy is back');
$redis->cli('set', 'item:3', 'of the copy', 'ex', 300);
$redis->cli('set', 'other:3', 'not a rule\'s', 'ex', 300);
is(fills($copy, 4), '1', 'and stores a row');
is($main->psql('postgres', 'CREATE ROLE nobody; SET ROLE nobody; SELECT uncache.reclaim_fence()'),
	3, 'an ordinary role may not reclaim');
is(reclaim($main), 't', 'a superuser does');
ok(is_fenced($main, 'on'), 'production has the fence');
ok(is_fenced($copy, 'superseded'), 'the copy has not');
ok(delivered($main), 'all is delivered');
ok(!$redis->has('item:3') && !$redis->has('item:4'), 'what the copy may have stored is deleted');
ok($redis->has('other:3'), 'and nothing else');
is(fills($main, 1), '1', 'production fills');
isnt(fills($copy, 1), '1', 'the copy does not');
like(fence_stat($copy, 'last_error'), qr/superseded by a server on timeline 1 /, 'and says why');
$redis->kill9;
$redis->start;
ok(is_fenced($main, 'on') && is_fenced($copy, 'superseded'),
	'when Redis has forgotten it stays so');
$main->stop('immediate');
$main->start;
ok(is_fenced($main, 'on') && is_fenced($copy, 'superseded'), 'and when production has crashed');

# --- the other has stored nothing ---

# Nothing of it is in the outbox, to be sent again.
$main->safe_psql('postgres',
	q{CREATE TABLE fresh (id int); SELECT uncache.attach('fresh', 'fresh:{id}')});
is(reclaim($copy), 't', 'the copy reclaims');
ok(is_fenced($copy, 'on') && is_fenced($main, 'superseded'), 'and has the fence');
ok(delivered($copy), 'all is delivered');
my $copy_claimed = $copy->safe_psql('postgres', 'SELECT place_claim FROM uncache.fence_standing');
$copy->stop;
$redis->cli('set', 'fresh:5', 'of before', 'ex', 300);
is(reclaim($main), 't', 'production reclaims, while the copy has stored nothing');
ok(is_fenced($main, 'on'), 'it has the fence');
ok(delivered($main), 'all is delivered');
ok($redis->has('fresh:5'), 'nothing is flushed');
like(slurp_file($main->logfile),
	qr/readers may fill the cache\n.*DETAIL: .*stored nothing/, 'the log says so');

# --- fence_takeback ---

# It is called before the copy has heard from Redis that it is superseded.
$redis->freeze;
$copy->append_conf('postgresql.conf', "uncache.connect_timeout = '60s'");
$copy->start;
my $caller = $copy->background_psql('postgres');
$caller->query_until(qr/asked/, "\\echo asked\nSELECT uncache.reclaim_fence();\n");
ok($copy->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%reclaim_fence%'
		AND wait_event IS NOT NULL AND pid <> pg_backend_pid()}), 'the copy is asked at once');
$redis->thaw;
ok(is_fenced($copy, 'on'), 'the copy takes the fence once more');
$caller->quit;
ok(delivered($copy), 'all is delivered');
is($copy->safe_psql('postgres', 'SELECT place_claim FROM uncache.fence_standing'), $copy_claimed,
	'from its origin, and from no server of another one');
ok(is_fenced($main, 'superseded'), 'from production');
is(fills($copy, 6), '1', 'and stores a row');
$main->safe_psql('postgres',
	q{ALTER SYSTEM SET uncache.fence_takeback = '4s'; SELECT pg_reload_conf()});
$pings = $redis->pings;
ok(poll_until(sub { $redis->pings >= $pings + 16 }), 'as long as the copy is heard of');
is(fence_of($main), 'superseded', 'nothing is taken back');
$copy->stop;
ok(is_fenced($main, 'on'), 'but some time after it was heard of last');
ok(delivered($main), 'all is delivered');
ok(!$redis->has('item:6') && !$redis->has('fresh:5'), 'what it may have stored is deleted');
like(slurp_file($main->logfile),
	qr/taking the fence back from the server on timeline 2/, 'the log says so');
$main->safe_psql('postgres', q{ALTER SYSTEM RESET uncache.fence_takeback; SELECT pg_reload_conf()});

# --- equal timelines ---

my $twin = copy('twin', 0);
ok(poll_until(sub { fence_of($twin) eq 'superseded' && fence_of($main) eq 'on' }),
	'a copy without promotion is superseded by who has reclaimed')
  or diag fence_of($twin), ' ', fence_of($main);
is(reclaim($twin), 't', 'it reclaims');
$main->backup('second');
ok(is_fenced($main, 'superseded'), 'production is superseded');
is(reclaim($main), 't', 'and reclaims');
$twin->stop;
my $second = PostgreSQL::Test::Cluster->new('second');
$main->backup('third');
$second->init_from_backup($main, 'third');
$second->start;
ok(poll_until(sub { fence_of($second) eq 'superseded' && fence_of($main) eq 'superseded' }),
	'of two that differ in nothing neither fills')
  or diag fence_of($second), ' ', fence_of($main);
isnt(fills($_, 1), '1', 'as its readers find') foreach $main, $second;
is(reclaim($main), 't', 'until one reclaims');
ok(is_fenced($main, 'on') && is_fenced($second, 'superseded'),
	'which has the fence, and not the other');
is(fills($main, 1), '1', 'and fills');
$second->stop;

# --- another origin ---

my $other = new_fenced_node('other', $redis);
ok(is_fenced($main, 'on'), 'a server of another origin supersedes nobody');
is(fills($other, 1) . fills($main, 1), '11', 'both fill');
is(reclaim($other), 't', 'until one says that the keys are its own');
ok(is_fenced($other, 'on') && is_fenced($main, 'superseded'), 'then it alone has the fence');
like(fence_stat($main, 'last_error'), qr/another system identifier/, 'the other says why');
isnt(fills($main, 1), '1', 'it fills nothing');
is(reclaim($main), 't', 'it reclaims');
ok(is_fenced($main, 'on') && is_fenced($other, 'superseded'), 'and has the fence again');
is(fills($main, 1), '1', 'and fills');

# --- reclaimed before a copy comes ---

$main->backup('before');
is(reclaim($main), 't', 'a server that nobody has superseded reclaims');
my $late = PostgreSQL::Test::Cluster->new('late');
$late->init_from_backup($main, 'before', has_streaming => 0);
$late->set_standby_mode;
$late->start;
$late->promote;
ok(is_fenced($late, 'superseded'), 'a copy of before, on a newer timeline, is superseded');
is(fence_of($main), 'on', 'and the server is not');
is(fills($main, 1), '1', 'it fills');
$late->stop;

unlike(slurp_file($_->logfile), qr/PANIC|TRAP/, 'no PANIC') foreach $main, $copy, $other;
$_->stop foreach $main, $other;
done_testing();
