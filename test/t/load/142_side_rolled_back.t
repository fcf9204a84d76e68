# Refused rows whose writing to the side table is rolled back, again and again, are not counted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Faults;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'uncache.wait_timeout = 0');

plan skip_all => 'needs a library built with FAULT_POINTS=1' unless has_fault_points($node);

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub stat_of { return sql("SELECT $_[0] FROM uncache.stat") }

set_conf($node, 'uncache.fault_point', 'side-inserting:full');
$node->restart;
ok(wait_for_state($node, 'connected'), 'the worker is connected');
$redis->cli('acl', 'setuser', 'default', 'resetkeys', '~ok:*');
sql(q{SELECT uncache.invalidate_keys('no:1', 'no:2')});
ok(poll_until(sub { stat_of('last_error') =~ /refuses cannot be set aside in table/ }),
	'there is no room for refused keys in their table');
foreach my $try (1 .. 4)
{
	my $at = stat_of('last_error_at');

	ok(poll_until(sub { stat_of('last_error_at') ne $at }), "try $try");
}
cmp_ok(stat_of('keys_refused_now'), '<=', 2, 'they are counted once at the most');
is(sql('SELECT count(*) FROM uncache.outbox_side'), '0', 'and are not in the table');

sql('ALTER SYSTEM RESET uncache.fault_point');
$node->reload;
ok(poll_until(sub { sql('SELECT count(*) FROM uncache.outbox_side') eq '1' }),
	'with room they are');
is(sql('SELECT count(*) FROM uncache.backlog'), '1', 'and nowhere else');
ok(poll_until(sub { stat_of('keys_refused_now') eq '2' }), 'both are counted');
$redis->cli('acl', 'setuser', 'default', 'allkeys');
ok(delivered($node), 'and delivered when Redis takes them');
is(stat_of('keys_refused_now'), '0', 'then none is refused');

$node->stop;
done_testing();
