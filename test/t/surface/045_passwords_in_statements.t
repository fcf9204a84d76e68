# Whatever PostgreSQL logs of a statement, it logs no password of an address of Redis,
# however the password is written; and looking for them takes no time.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_node('main', $redis, 'log_statement = all',
	'log_parameter_max_length_on_error = -1');

# Run SQL; what the log says of it.
sub logged
{
	my ($sql) = @_;
	my $size = -s $node->logfile;

	$node->psql('postgres', $sql);
	return slurp_file($node->logfile, $size);
}

my %ways = (
	'is logged' => 'SELECT %s',
	'fails' => 'SELECT %s, 1 / 0',
	'is executed by another' => 'DO $do$ BEGIN EXECUTE $ex$SELECT %s, 1 / 0$ex$; END $do$',
	'is in a message' => 'DO $do$ BEGIN RAISE LOG $ex$it is %s$ex$; END $do$',
);
my @addresses = (
	'redis://me:badsecret@host',
	'REDIS://:badsecret@host/0',
	'unix://me:badsecret@/tmp/socket',
	'unix://:badsecret@/tmp/socket?db=1',
	'rediss+cluster://me:badsecret@host,other',
	'redis://me:bad badsecret@host',
	"redis://me:bad\tbadsecret\@host",
	'redis://me:bad@badsecret@host',
	'redis://me:bad://badsecret@host',
	q{redis://me:bad''badsecret@host},
	'redis://me:bad"badsecret@host',
	'redis://me:6379 badsecret@host',
	'redis://me:good@host  unix://me:badsecret@/tmp/socket redis://host',
	'redis://host:6379/0 redis://me:badsecret@host',
);

foreach my $address (@addresses)
{
	foreach my $way (sort keys %ways)
	{
		my $log = logged(sprintf $ways{$way}, "'$address'");

		# A statement that may hold a password is left out, where it is not the message.
		ok($log =~ m{://\w*:\*@} && $log !~ /badsecret/, "$address $way") or diag($log);
	}
}

# What is none stays as it is.
foreach my $text ('redis://host:6379/0', 'http://me:word@host', 'redis://me@host')
{
	like(logged("SELECT '$text', 1 / 0"), qr/\Q$text\E/, "$text is logged as it is");
}
like(logged(q{SELECT 'redis://host:6379/0' -- me@home}), qr{redis://host:6379/0' -- me\@home},
	'so is a port before a comment');

# Each of these takes minutes where a byte is looked at more than a few times.
my %long = (
	'separators alone' => '://' x 300_000,
	'addresses' => 'redis://' x 200_000,
	'addresses with colons' => 'redis://a:b' x 200_000,
	'addresses in quotes' => q{"redis://a:b" } x 100_000,
	'blanks' => 'redis://a:b' . ' ' x 900_000,
	'passwords' => 'redis://a:b@c ' x 100_000,
	'the setting' => 'uncache.redis_url ://' x 50_000,
);
foreach my $what (sort keys %long)
{
	my $start = time;

	$node->psql('postgres', "SELECT 1 / 0, \$long\$$long{$what}\$long\$", on_error_stop => 0);
	cmp_ok(time - $start, '<', 10 * Uncache::crowd(),
		"a failing statement of a megabyte takes no time: $what");
}

$node->stop;
done_testing();
