# uncache.max_row_size and uncache.max_transaction_size.

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

sub sql { return $node->safe_psql('postgres', @_) }

# The error of a script, which ends at the first; '' where there is none.
sub error_of
{
	my ($sql) = @_;
	my (undef, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		on_error_stop => 1);

	return $err;
}

is(sql('SHOW uncache.max_row_size'), '16MB', 'a row has 16 MB');
is(sql('SHOW uncache.max_transaction_size'), '1GB', 'a transaction 1 GB');

# "n" keys of 1 kB each; other keys for another "from".
sql(q{
	CREATE FUNCTION tags(n int, "from" int DEFAULT 1) RETURNS text[] LANGUAGE sql AS
		$$ SELECT array_agg(lpad(g::text, 1020, '0'))
			FROM generate_series("from", "from" + n - 1) g $$;
	CREATE TABLE doc (id int PRIMARY KEY, tags text[], note text);
	SELECT uncache.attach('doc', 'tag:{tags}');
	CREATE ROLE app; GRANT ALL ON doc TO app});

# --- one row ---

my $limit = q{SET uncache.max_row_size = '100kB';};
is(error_of("$limit INSERT INTO doc VALUES (1, tags(100))"), '', 'a row may record its limit');
my $err = error_of("$limit INSERT INTO doc VALUES (2, tags(101))");
like($err, qr/ERROR:  54000: the keys of a row have more than 100 kB/, 'but no more');
like($err, qr/DETAIL:  Rule "uncache_row" of table "doc"/, 'the rule is named');
like($err,
	qr/HINT:  .*uncache\.max_row_size.*uncache\.enabled = off.*uncache\.invalidate_table\(\)/,
	'and the way out');
is(error_of("$limit UPDATE doc SET note = 'x'"), '', 'a key that is old and new counts once');
like(error_of("$limit UPDATE doc SET tags = tags(50, 1000)"), qr/the keys of a row have more/,
	'old and new keys count together');
is(error_of("$limit INSERT INTO doc SELECT g, tags(60, g * 100) FROM generate_series(3, 9) g"), '',
	'each row by itself');
is(error_of("$limit SET uncache.enabled = off; INSERT INTO doc VALUES (2, tags(200))"),
	'', 'the hint works');
like(error_of(q{SET ROLE app; SET uncache.max_row_size = '1GB'}),
	qr/permission denied to set parameter/, 'not everybody may raise it');
is(sql('SELECT count(*) FROM doc'), '9', 'no row that was refused is there');

# --- to compare keys takes no more memory than to record them ---

sql(q{CREATE TABLE part (id int PRIMARY KEY, tags text[], note text);
	INSERT INTO part VALUES (1, tags(200));
	SELECT uncache.attach_columns('part', '{id}', 'part:{tags}')});
like(error_of("$limit UPDATE part SET tags = tags(200, 2)"),
	qr/the keys of a row have more.*Rule "uncache_row" of table "part"/s,
	'keys that are compared count, too');

# --- one transaction ---

$limit = q{SET uncache.max_transaction_size = '1MB';};
sql('DELETE FROM doc');
$err = error_of("$limit INSERT INTO doc SELECT g, tags(100, g * 100)
	FROM generate_series(1, 11) g");
like($err, qr/ERROR:  54000: the keys of the transaction have more than 1024 kB/,
	'a transaction is limited');
like($err, qr/DETAIL:  Rule "uncache_row" of table "doc"/, 'the rule is named');
like($err,
	qr/HINT:  .*uncache\.max_transaction_size.*uncache\.enabled = off.*uncache\.invalidate_table\(\)/,
	'and the way out');
is(error_of("$limit INSERT INTO doc SELECT g, tags(100, g * 100) FROM generate_series(1, 10) g"),
	'', 'up to its limit it commits');
is(error_of("$limit UPDATE doc SET note = 'y'; UPDATE doc SET note = 'z'"), '',
	'each transaction by itself');
$err = error_of("$limit SELECT uncache.invalidate_keys(VARIADIC tags(1100))");
like($err,
	qr/the keys of the transaction have more than 1024 kB.*DETAIL:  Keys that no rule has made/s,
	'keys without a rule count, too');
is(error_of("$limit BEGIN; SELECT uncache.invalidate_keys(VARIADIC tags(1000));
	SELECT uncache.invalidate_keys(VARIADIC tags(1000)); COMMIT"),
	'', 'a key counts once');
is(error_of("$limit BEGIN; " .
	join('', map { "SAVEPOINT s; SELECT uncache.invalidate_keys(VARIADIC tags(900, $_));
		ROLLBACK TO s;" } 1 .. 3) .
	'COMMIT'), '', 'what is rolled back does not count');
is(error_of(qq{$limit DO \$\$
	BEGIN
		FOR i IN 1 .. 3 LOOP
			BEGIN
				PERFORM uncache.invalidate_keys(VARIADIC tags(1100, i * 2000));
				RAISE 'not refused';
			EXCEPTION WHEN program_limit_exceeded THEN
			END;
		END LOOP;
		PERFORM uncache.invalidate_keys('after');
	END \$\$}), '', 'nor what was refused');
ok(delivered($node), 'all is delivered');

# --- the worker records what it has to ---

my $long = 'long:' . ('x' x 3000);
sql("CREATE TABLE lost (id int); SELECT uncache.attach('lost', '$long' || ':{id}')");
ok(delivered($node), 'delivered');
$redis->fill("$long:1");
sql(q{ALTER SYSTEM SET uncache.max_transaction_size = '1kB'});
sql(q{ALTER SYSTEM SET uncache.after_lost_commits = 'flush'});
$node->stop('immediate');
$node->start;
ok(gone($redis, "$long:1"), 'after a crash it invalidates all, however small the limit');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'no PANIC');

$node->stop;
done_testing();
