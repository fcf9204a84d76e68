# TRUNCATE takes the keys that the type of each expression can give, and leaves what
# other things are called with the same beginning: look:settings, look:007.

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

# A column, its type, values whose keys must go, and keys that must stay.
my @cases = (
	['en', 'state', ['open', 'a|b', 'c}d'], ['closed']],
	['i2', 'smallint', ['-7', '32767'], ['007', '32768', '99999999999']],
	['i4', 'int', ['0', '-2147483648'], ['007', '2147483648', '99999999999', '-0']],
	['i8', 'bigint', ['9223372036854775807'], ['9223372036854775808', '0123']],
	['nu', 'numeric(10,2)', ['1.50', 'NaN'], ['1.5', '1', '123456789.00']],
	['mo', 'money', ['$1,234.56', '-$0.05'], ['1234.56']],
	['da', 'date', ['2024-02-29', 'infinity'], ['2024-02-31', '2024-02-29:x', 'today']],
	['ti', 'time', ['24:00:00', '12:30:00.5'], ['25:00:00', '12:30']],
	['ts', 'timestamp', ['2024-02-29 12:30:00.25'], ['2024-02-29', '2024-02-29T12:30:00']],
	['tz', 'timestamptz', ['2024-02-29 12:30:00+00'],
		['2024-02-29 12:30:00', '2024-02-29 12:30:00+02']],
	['ip', 'inet', ['10.0.0.1', '10.0.0.0/8', '::1', '2001:db8::/32'],
		['10.0.0', '10.0.0.256', 'dead']],
	['ci', 'cidr', ['10.0.0.0/8', '::/0'], ['10.0.0.0']],
	['ma', 'macaddr', ['08:00:2b:01:02:03'], ['08:00:2b:01:02']],
	['by', 'bytea', ['\x00ff'], ['00ff']],
	['js', 'jsonb', ['"x"', '{"a": 1}', '[1]', '7'], ['x']],
	['ra', 'int4range', ['[1,5)', 'empty'], ['1,5']]);
my @gone;
my @stay;
$node->safe_psql('postgres', q[CREATE TYPE state AS ENUM ('open', 'a|b', 'c}d')]);
for my $case (@cases)
{
	my ($name, $type, $values, $others) = @$case;

	$node->safe_psql('postgres',
		"CREATE TABLE $name (v $type); SELECT uncache.attach('$name', 'look-$name:{v}')");
	push @gone, map { "look-$name:$_" } @$values;
	push @stay, map { "look-$name:$_" } @$others, 'settings', '1:session', '';
}
# What is known of an expression besides its type.
$node->safe_psql('postgres', q{
	CREATE TABLE ex (v int, t text);
	SELECT uncache.attach('ex', 'md:{md5(t)}', 'mod:{v % 10}', 'io:{v::text}',
		'co:{''eu''}:{v}', '{''at''}:{7}')});
push @gone, 'md:d41d8cd98f00b204e9800998ecf8427e', 'mod:-9', 'io:42', 'co:eu:1', 'at:7';
push @stay, 'md:settings', 'mod:42', 'io:x', 'io:007', 'co:us:1', 'at:8';

$redis->fill(@gone, @stay);
$node->safe_psql('postgres', join '; ', map { "TRUNCATE $_" } map({ $_->[0] } @cases), 'ex');
ok(delivered($node), 'all TRUNCATEs are delivered');
is(join("\n", grep { $redis->has($_) } @gone), '', 'the keys that the rules can give are gone');
is(join("\n", grep { !$redis->has($_) } @stay), '', 'those that only begin alike are there');

# The labels are those of the moment.
$node->safe_psql('postgres', q{ALTER TYPE state ADD VALUE 'closed'});
$node->safe_psql('postgres', 'TRUNCATE en');
ok(delivered($node), 'another TRUNCATE is delivered');
ok(!$redis->has('look-en:closed') && $redis->has('look-en:settings'),
	'it takes the key of a new label');

$node->stop;
done_testing();
