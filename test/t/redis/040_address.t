# Every form of uncache.redis_url that one server can have; a password file that
# changes; a reload that moves to another server with rows pending.  And no
# password ever shows, in no view, no message, no log and no process title.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RedisServer;
use Uncache;

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $redis = RedisServer->new('--port', $port, '--bind', '127.0.0.1', '-::1', '--databases', 20);
$redis->start;
$redis->cli(qw(acl setuser de:le@te/r on ~* &* +@all), '>pa:ss/w@rd%?');
$redis->cli(qw(acl setuser nobody on nopass ~* &* +@all));
$redis->cli(qw(acl setuser rotating on ~* &* +@all >firstsecret));

my $folder = PostgreSQL::Test::Utils::tempdir();
my $password_file = "$folder/password";
my @secrets = ('pa:ss/w@rd%?', 'pa%3Ass%2Fw%40rd%25%3F', 'firstsecret', 'secondsecret', 'badsecret',
	'wrongsecret', 'pendingsecret');

my $node = new_node('main', $redis, 'log_statement = all', 'uncache.connect_timeout = 5s');
$node->safe_psql('postgres', q{
	CREATE ROLE ordinary;
	CREATE ROLE watcher IN ROLE pg_monitor});

sub sql { return $node->safe_psql('postgres', @_) }

sub reload_with
{
	my (%settings) = @_;

	foreach my $name (keys %settings)
	{
		$node->append_conf('postgresql.conf', "uncache.$name = '$settings{$name}'");
	}
	$node->reload;
	return;
}

# delivers(NAME, DB): a key leaves that database of Redis, and the other ones keep it.
my $keys = 0;

sub delivers
{
	my ($name, $db) = @_;
	my $key = 'key' . ++$keys;
	my $other = $db == 0 ? 1 : 0;

	$redis->cli('-n', $_, 'set', $key, 1) foreach $db, $other;
	sql("SELECT uncache.invalidate_keys('$key')");
	ok(poll_until(sub { $redis->cli('-n', $db, 'exists', $key) eq '0' }), "$name: delivered");
	is($redis->cli('-n', $other, 'exists', $key), '1', "$name: to database $db only");
	return;
}

sub client_user { return $redis->cli('client', 'list') =~ /name=pg_uncache .*user=(\S+)/ ? $1 : '' }

# Addresses.
my $user = 'de%3Ale%40te%2Fr:pa%3Ass%2Fw%40rd%25%3F';
my $path = $redis->socket =~ s/t\z/%74/r;

foreach (
	[ "redis://127.0.0.1:$port", 0, 'default' ],
	[ "redis://localhost:$port/", 0, 'default' ],
	[ "redis://127.0.0.1:$port/7", 7, 'default' ],
	[ "redis://$user\@127.0.0.1:$port/19", 19, 'de:le@te/r' ],
	[ "redis://[::1]:$port/3", 3, 'default' ],
	[ "redis://nobody\@127.0.0.1:$port", 0, 'nobody' ],
	[ "unix://$path", 0, 'default' ],
	[ "unix://$user\@$path?db=2", 2, 'de:le@te/r' ])
{
	my ($url, $db, $as) = @$_;
	my $shown = $url =~ s/$user/USER:PASSWORD/r;

  SKIP:
	{
		skip 'no IPv6 here', 4 if $url =~ /::1/ && `redis-cli -h ::1 -p $port ping 2>&1` !~ /PONG/;
		reload_with(redis_url => $url);
		ok(poll_until(sub { wait_for_state($node, 'connected') && client_user() eq $as }),
			"$shown: as $as");
		delivers($shown, $db);
		unlike(sql('SELECT redis FROM uncache.stat'), qr/\@|de%3A|nobody/,
			"$shown: endpoint without the user");
	}
}

# The password file: read at each connect.
sub rotate
{
	my ($password, $mode) = (@_, 0600);

	PostgreSQL::Test::Utils::append_to_file("$password_file.new", $password);
	chmod $mode, "$password_file.new" or die $!;
	rename "$password_file.new", $password_file or die $!;
	return;
}

sub times_logged
{
	my ($text) = @_;
	my $found = () = slurp_file($node->logfile) =~ /\Q$text\E/g;

	return $found;
}

rotate("firstsecret\n");
reload_with(redis_url => "redis://rotating:wrongsecret\@127.0.0.1:$port",
	redis_password_file => $password_file);
ok(poll_until(sub { client_user() eq 'rotating' }), 'the password file comes before the address');
delivers('password file', 0);
is(times_logged("file \"$password_file\" holds a secret"), 0, 'of mode 0600: nothing to say');

rotate("firstsecret\n", 0644);
for (1 .. 2)
{
	my $id = $redis->cli(qw(client id));

	$redis->cli(qw(client kill user rotating));
	ok(poll_until(sub { $redis->cli(qw(client list)) =~ /id=(\d+) .*user=rotating/ && $1 > $id }),
		'connects anew');
}
is(times_logged("file \"$password_file\" holds a secret"), 1,
	'of mode 0644: the log says so, once');

$redis->cli(qw(acl setuser rotating resetpass >secondsecret));
$redis->cli(qw(client kill user rotating));
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /refused the user name or the password/ }),
	'a password that was changed is refused');
sql(q{SELECT uncache.invalidate_keys('pending')});
$redis->cli(qw(set pending 1));
rotate('secondsecret');
ok(poll_until(sub { client_user() eq 'rotating' }), 'the new one is read without a reload');
ok(gone($redis, 'pending'), 'and nothing is lost meanwhile');

unlink $password_file;
$redis->cli(qw(client kill user rotating));
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /could not read the Redis password file.*No such file/ }),
	'a missing file is reported');
rotate('secondsecret');
ok(poll_until(sub { client_user() eq 'rotating' }), 'until it is there again');

# With rows pending, to another server: they go there.
my $second = RedisServer->new('--requirepass', 'pendingsecret');
$second->cli_options('--no-auth-warning', '-a', 'pendingsecret');
$second->start;
$redis->freeze;
$second->fill(map { "moved:$_" } 1 .. 500);
sql('SET uncache.wait_timeout = 0; ' . join ';',
	map { "SELECT uncache.invalidate_keys('moved:$_')" } 1 .. 500);
is(sql('SELECT count(*) FROM uncache.backlog'), '500', 'rows are pending');
reload_with(redis_url => $second->url =~ s{//}{//:pendingsecret@}r, redis_password_file => '');
ok(delivered($node), 'the reload takes effect at once');
is($second->cli('dbsize'), '0', 'and all of them go to the new address');
$redis->thaw;

# Away from an address that cannot be used: the log hears how it ended.
reload_with(redis_url => $second->url =~ s{//}{//:wrong@}r);
ok(poll_until(sub { sql('SELECT state FROM uncache.stat') eq 'down' }),
	'an address that cannot be used');
my $told = -s $node->logfile;
reload_with(redis_url => $second->url =~ s{//}{//:pendingsecret@}r);
ok(poll_until(sub { slurp_file($node->logfile,
	$told) =~ /LOG:  database "postgres": connected to Redis at \Q@{[$second->url]}\E$/m }),
	'the log tells when the corrected one is connected');

# What is refused.
sub refused
{
	my ($url, $message, $name) = @_;
	my ($status, undef, $error) = $node->psql('postgres',
		"SET log_min_messages = panic; ALTER SYSTEM SET uncache.redis_url = '$url'");

	isnt($status, 0, "$name is refused");
	like($error, $message, "$name: with the reason");
	unlike($error, qr/badsecret|bad\@secret/, "$name: without the password");
	return;
}

refused('http://x:badsecret@h', qr/must begin with redis:/, 'another scheme');
refused('redis://x:bad@secret@h', qr/Write "@" in a user name/, 'a password that is not encoded');
refused('redis://x:badsecret@h/abc', qr/must be a number from 0/, 'a database that is no number');
refused('redis://x:badsecret@h redis://', qr/The host is missing/,
	'a second address without a host');
refused('redis://x:badsecret@h,i', qr/More than one host is not supported/, 'a list of hosts');

sql(qq{ALTER SYSTEM SET uncache.redis_url = 'redis://me:badsecret\@127.0.0.1:$port'});
$node->reload;
ok(poll_until(sub { sql('SELECT last_error FROM uncache.stat')
	=~ /refused the user name or the password/ }),
	'a wrong password');
my (undef, undef, $warning) = $node->psql('postgres',
	"ALTER DATABASE postgres SET uncache.redis_url = 'redis://me:badsecret\@127.0.0.1:$port'");
like($warning, qr/WARNING: .*can be read by every user/, 'a password in a catalog gets a warning');
sql('ALTER DATABASE postgres RESET uncache.redis_url');

# An address that comes as a parameter, in messages that do not name the setting.
$node->psql('postgres', q{
	SET log_min_duration_statement = 0;
	PREPARE x(text) AS SELECT set_config('uncache.redis_url', $1, false);
	EXECUTE x('redis://:badsecret@127.0.0.1');
	EXECUTE x('redis://:badsecret@h,i')});

# Secrets.
foreach my $role ('ordinary', 'watcher')
{
	my $sees = sql(qq{
		GRANT USAGE ON SCHEMA uncache TO $role;
		SET ROLE $role;
		SELECT string_agg(s::text, ' ') FROM pg_settings s WHERE name LIKE 'uncache.redis%'});
	my ($status, undef, $error) = $node->psql('postgres', "SET ROLE $role; SHOW uncache.redis_url");

	# pg_monitor has pg_read_all_settings, which is there to see them.
	if ($role eq 'ordinary')
	{
		is($sees, '', 'an ordinary user does not see the settings in pg_settings');
		like($error, qr/must be (superuser|.*pg_read_all_settings)|permission denied/,
			'nor by SHOW');
	}
	($status, undef, $error) = $node->psql('postgres',
		"SET ROLE $role; SET uncache.redis_url = 'redis://h'");
	isnt($status, 0, "$role can not set the address");
}

sub shows_none
{
	my ($text, $where) = @_;
	my @shown = grep { index($text, $_) >= 0 } @secrets;

	cmp_ok(length $text, '>', 0, "$where: there is something to look at");
	is("@shown", '', "$where: no secret");
	return;
}

shows_none(sql('SELECT s::text, b::text FROM uncache.stat s LEFT JOIN uncache.backlog b ON true'),
	'views');
shows_none(slurp_file($node->logfile), 'server log');
shows_none(scalar `ps -eo args | grep postgres: | grep -v grep`, 'process titles');
like(slurp_file($node->logfile), qr{parameter "uncache.redis_url" changed to "redis://me:\*\@},
	'the server logs the changed setting with a star');

sql('ALTER SYSTEM RESET uncache.redis_url');
$node->stop;

# A mistake in the file must not let the worker deliver to the default address.
$node->append_conf('postgresql.conf', q{uncache.redis_url = 'http://x:badsecret@h'});
my $size = -s $node->logfile;
ok(!$node->start(fail_ok => 1), 'the server does not start with an address that it cannot use');
my $log = slurp_file($node->logfile, $size);
like($log, qr/FATAL: .*invalid value for parameter "uncache.redis_url"/,
	'and says which setting is wrong');
like($log, qr/must begin with redis:/, 'and why');
unlike($log, qr/badsecret/, 'without the password');

done_testing();
