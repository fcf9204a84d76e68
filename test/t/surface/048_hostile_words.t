# What a hostile Redis says reaches the log and the views as text: no control characters, no
# broken characters, none that is cut.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisProxy;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $proxy = RedisProxy->new($redis);
my $node = new_node('main', $proxy);

# The text is cut after an odd number of bytes, so within one of these characters of two.
$proxy->error_for('UNLINK', "ERR \x1b\xffx" . "\xc3\xa4" x 200);
ok(wait_for_state($node, 'connected'), 'connected');
$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('key')});
ok($node->poll_query_until('postgres',
	q{SELECT last_error LIKE '%has refused an invalidation%' FROM uncache.stat}), 'refused');

my ($line) = grep { /database "postgres": Redis has refused an invalidation/ } split /\n/,
	slurp_file($node->logfile);

ok(defined $line, 'the log says so');
like($line, qr/ERR \?\?x(?:\xc3\xa4)+$/, 'in whole characters, with ? for what is no text');
like($node->safe_psql('postgres', 'SELECT last_error FROM uncache.stat'),
	qr/ERR \?\?x(?:\xc3\xa4)+$/, 'and so does the view');

# Words in the middle of a message are cut behind a whole character, too: here after 150 bytes,
# of which 9 stand before the characters of two.
$proxy->error_for('UNLINK', 'LOADING x' . "\xc3\xa4" x 200);
$node->safe_psql('postgres', q{SELECT uncache.invalidate_keys('other')});
ok($node->poll_query_until('postgres',
	q{SELECT last_error LIKE '%is loading its data set%' FROM uncache.stat}), 'given up');
($line) = grep { /cannot be used: Redis is loading its data set/ } split /\n/,
	slurp_file($node->logfile);
ok(defined $line, 'the log says so');
like($line, qr/\(LOADING x(?:\xc3\xa4){70}\)$/, 'with whole characters up to the bracket');
like($node->safe_psql('postgres', 'SELECT last_error FROM uncache.stat'),
	qr/\(LOADING x(?:\xc3\xa4){70}\)$/, 'and so does the view');

$node->stop;
done_testing();
