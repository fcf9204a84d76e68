# Does tidy.pl find what it is for?  It reads a small made-up tree that is in order,
# then the same tree with one fault in it, for each kind of fault.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my $tidy = dirname(__FILE__) . '/tidy.pl';

sub module
{
	my ($name, $body, @includes) = @_;

	return "/*\n * $name\n *\t  A file of a made-up tree.\n */\n"
	  . join('', map { "#include \"$_\"\n" } 'postgres.h', @includes) . "\n$body";
}

sub function
{
	my ($name, @calls) = @_;

	return "void\n$name(void)\n{\n" . join('', map { "\t$_();\n" } @calls) . "}\n";
}

# Worker calls redis and base, redis calls base; a comment and a string call nothing.
my %tree = (
	'src/pg_uncache.c' => module('pg_uncache.c', function('_PG_init', 'worker_run')),
	'src/base/clock.c' => module('clock.c', function('clock_now'), 'base/clock.h'),
	'src/base/clock.h' => "/* clock.h: the time */\nextern void clock_now(void);\n",
	'src/redis/redis_io.c' => module('redis_io.c',
		function('redis_io_read', 'clock_now') . "\n" . function('redis_write', 'redis_io_read'),
		'base/clock.h', 'redis/redis_int.h'),
	'src/redis/redis_url.c' => module('redis_url.c', function('redis_url_parse')),
	'src/redis/redis.h' => "/* redis.h: a link */\nextern void redis_write(void);\n",
	'src/redis/redis_int.h' =>
	  "/* redis_int.h: of this folder */\nextern void redis_io_read(void);\n",
	'src/worker/worker.c' => module('worker.c',
		"/* worker_loop() of \"worker_loop()\" */\nstatic void\nhidden_loop(void)\n{\n}\n\n"
		  . function('worker_run', 'redis_write', 'clock_now', 'hidden_loop'),
		'redis/redis.h', 'base/clock.h'),
	'README.md' =>
	  "# Tree\n\n[The limits](#some-limits), [the page](docs/page.md#why-it-is-so).\n\n"
	  . "## Some limits\n",
	'docs/page.md' => "# Page\n\n## Why it is so\n\n| a table | " . 'x' x 120 . " |\n",
	'test/t/load/001_some.t' =>
	  "# A test.\nis(1, 1,\n\tqr/" . 'a regular expression ' x 6 . "/);\n",
);

# Run tidy.pl on the tree as changed; its output.
sub tidy
{
	my (%change) = @_;
	my $folder = tempdir(CLEANUP => 1);
	my %files = (%tree, %change);

	foreach my $file (grep { defined $files{$_} } keys %files)
	{
		make_path(dirname("$folder/$file"));
		open my $out, '>', "$folder/$file" or die "$file: $!";
		print $out $files{$file};
		close $out or die "$file: $!";
	}
	return scalar qx{perl "$tidy" "$folder" 2>&1};
}

sub failed { return join '; ', $_[0] =~ /^not ok \d+ - (.*)$/mg }

# finds(WHAT, NAME OF THE CHECK, PATTERN, FILE => TEXT...): this check alone fails, and says
# PATTERN.
sub finds
{
	my ($what, $check, $words, %change) = @_;
	my $out = tidy(%change);

	is(failed($out), $check, "$what is found") or diag $out;
	like($out, $words, '... and what to do is said');
	return;
}

my $order = tidy();
is(failed($order), '', 'a tree in order passes') or diag $order;
like($order, qr/^1\.\.\d+$/m, 'it comes to its end');

my $order_check = 'no folder calls one that comes after it';
my $include_check = "no file includes a later folder's header, or another folder's private one";
my $prefix_check = "an external function begins with its file's name";
my $blank_check = "no blank stands before a tab, and none at a line's end";
my $columns_check = 'no line is longer than 100 columns';
my $links_check = 'links in docs lead somewhere';

finds('a call of a later folder', $order_check,
	qr{src/base/clock_late\.c: calls worker_run\(\) of src/worker/worker, and base comes before},
	'src/base/clock_late.c' => module('clock_late.c', function('clock_late', 'worker_run')));

finds('a function of a later folder that is handed over', $order_check, qr/calls redis_write\(\)/,
	'src/base/clock_late.c' =>
	  module('clock_late.c', "void\nclock_late(void)\n{\n\tclock_call(redis_write);\n}\n"));

finds("a later folder's header", $include_check, qr{src/base/late\.c: includes worker/worker\.h},
	'src/base/late.c' => module('late.c', function('late'), 'worker/worker.h'),
	'src/worker/worker.h' => "/* worker.h: the worker */\n");

finds("another folder's private header", $include_check,
	qr{src/worker/looks\.c: includes redis/redis_int\.h, which is private to redis},
	'src/worker/looks.c' => module('looks.c', function('looks'), 'redis/redis_int.h'));

finds('a circle of two files', 'no files call each other in a circle',
	qr{in a circle: src/base/one src/base/two},
	'src/base/one.c' => module('one.c', function('one_calls', 'two_calls')),
	'src/base/two.c' => module('two.c', function('two_calls', 'one_calls')));

finds('a circle of three', 'no files call each other in a circle',
	qr{in a circle: src/base/one src/base/three src/base/two},
	'src/base/one.c' => module('one.c', function('one_calls', 'two_calls')),
	'src/base/two.c' => module('two.c', function('two_calls', 'three_calls')),
	'src/base/three.c' => module('three.c', function('three_calls', 'clock_now', 'one_calls')));

finds('a function with another name than its file', $prefix_check,
	qr{src/base/timer\.c:8: wake_up\(\) should begin with timer_},
	'src/base/timer.c' => module('timer.c', function('wake_up')));

finds('the first word of a file that has no relatives', $prefix_check,
	qr{timer_wake\(\) should begin with timer_pause_},
	'src/base/timer_pause.c' => module('timer_pause.c', function('timer_wake')));

finds("a file's name with glued words", "words of a file's name are separated",
	qr{src/redis/redisreply\.c: write its words apart},
	'src/redis/redisreply.c' => module('redisreply.c', function('redisreply_free')));

finds('a folder that the order does not name',
	'every file of src/ lies in a folder that the order names',
	qr{src/attic/old\.c: move it into one of},
	'src/attic/old.c' => module('old.c', function('old_call')));

finds('a TAP file in no folder',
	'a TAP file lies in a folder by theme, with a number of its own',
	qr{test/t/002_flat\.t: move it into a folder by theme}, 'test/t/002_flat.t' => "# A test.\n");

finds('two TAP files with a number',
	'a TAP file lies in a folder by theme, with a number of its own',
	qr{the same number: test/t/crash/001_other\.t test/t/load/001_some\.t},
	'test/t/crash/001_other.t' => "# A test.\n");

finds('a file whose head names another', "a file's head names it",
	qr{src/base/moved\.c: its first comment should name it},
	'src/base/moved.c' => module('clock.c', function('moved_call')));

finds('a line that is too long', $columns_check, qr{test/lib/Long\.pm:2: 101 columns},
	'test/lib/Long.pm' => "# Long.pm\n" . 'x' x 101 . "\n");

finds('a line that its tabs make too long', $columns_check, qr{src/base/wide\.h:2: 101 columns},
	'src/base/wide.h' => "/* wide.h: wide */\n" . "\t" x 5 . 'x' x 81 . "\n");

finds('prose that is too long', $columns_check, qr{docs/page\.md:3: 103 columns},
	'docs/page.md' => "# Page\n\n" . 'and so on, ' x 9 . "some\n\n## Why it is so\n");

finds('a blank before a tab', $blank_check, qr{test/lib/Mixed\.pm:1: a blank before a tab},
	'test/lib/Mixed.pm' => "    \tmy \$x;\n");

finds('a blank at the end', $blank_check, qr{test/lib/Mixed\.pm:1: blanks at the end},
	'test/lib/Mixed.pm' => "my \$x; \n");

finds('a link to a page that is not there', $links_check,
	qr{docs/other\.md: missing\.md leads nowhere},
	'docs/other.md' => "# Other\n\n[there](missing.md)\n");

finds('a link to a heading that is not there', $links_check,
	qr{docs/other\.md: docs/page\.md has no heading for #limits},
	'docs/other.md' => "# Other\n\n[there](page.md#limits)\n");

# errors.t, on a tree with one message, a detail, and a page that explains it.
my %messages = (
	'src/worker/worker.c' => "ereport(LOG, (errmsg(\"the worker has lost %d keys\", n),\n"
	  . "\t\terrdetail(\"some detail of it here\")));\n",
	'docs/errors.md' => "| message | means | do |\n|---|---|---|\n"
	  . "| `the worker has lost \x{e2}\x{80}\x{a6} keys` | it | that |\n",
);

sub errors
{
	my ($page) = @_;
	my $folder = tempdir(CLEANUP => 1);

	foreach my $file (keys %messages)
	{
		make_path(dirname("$folder/$file"));
		open my $out, '>:raw', "$folder/$file" or die "$file: $!";
		print $out $file =~ /md$/ ? $page // $messages{$file} : $messages{$file};
		close $out or die "$file: $!";
	}
	my $test = dirname(__FILE__) . '/errors.t';
	return failed(scalar qx{perl "$test" "$folder" 2>&1});
}

is(errors(), 'there are messages in the source', 'errors.t finds a message that is explained');
like(errors("# Nothing\n"), qr/explains every message of the source/, 'one that is not');
like(errors($messages{'docs/errors.md'} . "| `a message that is gone` | it | that |\n"),
	qr/every message that it explains is in the source/, 'and one that is gone');

done_testing();
