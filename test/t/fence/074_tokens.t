# Tokens that come with a statement, wherever they stand in it, count as handed to it: their
# snapshot is fresh.  Many of them in one statement cost one search.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Fence;
use RedisServer;
use Uncache;

my $redis = RedisServer->new;
$redis->start;
my $node = new_fenced_node('main', $redis);
my $token = miss($redis, 'item:1');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# bound(NAME, PROTOCOL, SCRIPT): run by pgbench, whose variables become parameters.  A
# script fails by dividing by zero.
sub bound
{
	my ($name, $protocol, $script) = @_;
	my $file = $node->basedir . '/' . $name =~ s/\W/_/gr . ".$protocol.sql";

	append_to_file($file, $script);
	return $node->command_ok([ 'pgbench', '-n', '-t', 2, '-M', $protocol, '-D', "token=$token",
		'-f', $file, 'postgres' ],
		"$name ($protocol)");
}

# --- where a token may stand ---

sql(q{
	CREATE DOMAIN token_text AS text CHECK (VALUE <> '');
	CREATE DOMAIN token_list AS token_text[];
	CREATE DOMAIN token_json AS jsonb});
# Each parameter is used once, and its type is what the cast says.
my %parameters = (
	'text' => q{(:token)::text},
	'varchar' => q{(:token)::varchar},
	'a domain' => q{(:token)::token_text},
	'text[]' => q{(:list)::text[]},
	'varchar[]' => q{(:list)::varchar[]},
	'a domain over an array' => q{(:list)::token_list},
	'an array of a domain' => q{(:list)::token_text[]},
	'an array of two dimensions' => q{(:matrix)::text[]},
	'json' => q{(:object)::json},
	'jsonb' => q{(:object)::jsonb},
	'jsonb, as a key' => q{(:key)::jsonb},
	'a domain over jsonb' => q{(:object)::token_json},
	'jsonb[]' => q{(:objects)::jsonb[]},
	'text with more in it' => q{(:sentence)::text},
);
my $sets = <<"END";
SELECT '{x,NULL,$token}' AS list, '{{x,$token},{y,z}}' AS matrix,
	'look at $token, please' AS sentence \\gset
SELECT jsonb_build_object('a', ARRAY[1, 2], 'b', '$token') AS object,
	jsonb_build_object('$token', 1) AS key \\gset
SELECT ARRAY[jsonb_build_object('b', '$token')]::text AS objects \\gset
END
# The token for the function comes by another way, so that the parameter alone can make it fresh.
sql("CREATE TABLE kept (token text); INSERT INTO kept VALUES ('$token')");
foreach my $type (sort keys %parameters)
{
	foreach my $protocol ('extended', 'prepared')
	{
		bound($type, $protocol, $sets . qq{
SELECT 1 / (uncache.snapshot((SELECT token FROM kept)) ~ '^[^:]+:[0-9]+:[^:]+:1:')::int
	FROM (SELECT $parameters{$type} AS p OFFSET 0) q WHERE p IS NOT NULL;
});
	}
}
foreach my $type ('int[]', 'bytea', 'name')
{
	bound("not in $type", 'extended', $type eq 'int[]' ? q{
SELECT 1 / (uncache.snapshot((SELECT token FROM kept)) ~ '^[^:]+:[0-9]+:[^:]+:0:')::int
	FROM (SELECT '{1,2}'::int[] AS p OFFSET 0) q WHERE p IS NOT NULL;
} : qq{
SELECT 1 / (uncache.snapshot((SELECT token FROM kept)) ~ '^[^:]+:[0-9]+:[^:]+:0:')::int
	FROM (SELECT (:token)::$type AS p OFFSET 0) q WHERE p IS NOT NULL;
});
}
bound('not as a part of something longer', 'extended', q{
SELECT 'x' || :token AS longer, :token || '0' AS number \gset
SELECT 1 / (uncache.snapshot((SELECT token FROM kept)) ~ '^[^:]+:[0-9]+:[^:]+:0:')::int
	WHERE (:longer)::text <> (:number)::text;
});

# --- many at once ---

is(sql("SELECT uncache.snapshot(ARRAY[NULL, 'x', '$token', '']::text[])::text")
	=~ s/\Q$token\E:\w+:1:\d+:\d+:/SNAPSHOT/r,
	'{NULL,NULL,SNAPSHOT,NULL}', 'snapshot(text[]): one for each token, NULL for what is none');
is(sql('SELECT uncache.snapshot(NULL::text[]) IS NULL'), 't', 'NULL for NULL');
is(sql(q{SELECT uncache.snapshot('{}'::text[])::text}), '{}', 'an empty array for an empty one');
is(sql("SELECT array_dims(uncache.snapshot('[0:1][5:5]={{$token},{x}}'::text[]))"),
	'[0:1][5:5]', 'the shape stays');
is(sql("SELECT (uncache.snapshot(ARRAY['$token']))[1] = uncache.snapshot('$token')"), 't',
	'each is that of the scalar function');
is(sql("BEGIN; UPDATE item SET v = v WHERE id = 2;
	SELECT uncache.snapshot(ARRAY['$token', 'x'])::text; ROLLBACK"),
	'{NULL,NULL}', 'in a transaction that writes there is none');
is(sql("SET uncache.fence_ttl = 0; SELECT uncache.snapshot(ARRAY['$token'])::text"), '{NULL}',
	'nor with the fence off');
is(sql("CREATE ROLE app; SET ROLE app; SELECT uncache.snapshot(ARRAY['$token']) IS NULL"), 'f',
	'it is everyone\'s');

# A reader of many: all that it has missed is stored after one statement.
my $many = 10000;
my @keys = map { "item:$_" } 1 .. $many;
my @missed = split /\n/, $redis->pipe(map { [ 'fcall', 'uncache_get', 1, $_ ] } @keys);
my @tokens = grep { /:/ } @missed;
is(scalar @tokens, $many, "$many tokens");
$redis->cli(qw(config resetstat));
my $list = '{' . join(',', @tokens) . '}';
my %reads = (
	'an array in the text, scalar calls' => "SELECT uncache.snapshot(t)
		FROM unnest('$list'::text[]) WITH ORDINALITY u(t, n) ORDER BY n",
	'an array in the text, one call' => "SELECT unnest(uncache.snapshot('$list'::text[]))",
	'scalars in the text' => "SELECT uncache.snapshot(t) FROM (VALUES " . join(',',
		map { "($_, '$tokens[$_]')" } 0 .. $#tokens) . ') u(n, t) ORDER BY n',
);
foreach my $way (sort keys %reads)
{
	$redis->cli('unlink', @keys);
	my @snapshots = split /\n/, sql($reads{$way});
	is(scalar(grep { /^[^:]*:\d+:\w+:1:/ } @snapshots), $many, "$way: all snapshots are fresh");
	my @answers = split /\n/, $redis->pipe(map { [ 'fcall', 'uncache_set', 1, $keys[$_],
		$snapshots[$_], 60000, 'x' ] } 0 .. $#keys);
	is(scalar(grep { $_ eq '1' } @answers), $many, '... and all fills are stored');
}

# The same number of calls with parameters: a table holds the tokens, so that the
# script's variable is one array.
my $file = $node->basedir . '/tokens';
append_to_file($file, join "\n", @tokens);
sql("CREATE TABLE many (n serial, token text); COPY many (token) FROM '$file'");
foreach my $type ('text[]', 'jsonb')
{
	my ($make, $use) = $type eq 'jsonb' ?
	  ('jsonb_agg(token)', 'jsonb_array_elements_text((:tokens)::jsonb)') : ('array_agg(token)',
		'unnest((:tokens)::text[])');

	bound("$many in $type", 'extended', qq{
SELECT $make AS tokens FROM many \\gset
SELECT 1 / (count(*) = $many)::int FROM $use t WHERE uncache.snapshot(t) ~ '^[^:]+:[0-9]+:[^:]+:1:';
});
}

# The text is searched once for all calls, not once for each: ten times as many tokens take no
# hundred times as long.
sub seconds_for
{
	my ($count) = @_;
	my $some = '{' . join(',', @tokens[0 .. $count - 1]) . '}';
	my $began = time;

	sql("SELECT count(uncache.snapshot(t)) FROM unnest('$some'::text[]) t");
	return time - $began;
}

my ($few) = sort { $a <=> $b } map { seconds_for($many / 10) } 1 .. 3;
my $all = seconds_for($many);
cmp_ok($all, '<', 40 * $few + 2, "$many calls in $all s, a tenth of them in $few s");

# A text that is all colons, and a batch of statements, are searched in linear time.
my $times = join ' ', ('1:1 12:30:45 a:b') x 60000;
is(sql("SELECT uncache.snapshot('$token') ~ '^[^:]+:[0-9]+:[^:]+:1:' /* $times */"), 't',
	'a megabyte of what are almost tokens');
my $batch = join "\\;\n",
	map { "SELECT uncache.snapshot('$tokens[$_]') ~ '^[^:]+:[0-9]+:[^:]+:1:'" } 0 .. 4999;
my $out = sql("$batch;");
is(scalar(() = $out =~ /^t$/mg), 5000, 'five thousand statements in one message');

$node->stop;
done_testing();
