#!/usr/bin/perl
#
# errors.t: docs/errors.md has every message of the source, and none that is gone.
#
# A message is a literal of at least three words in src/*/*.c that does not end with a full
# stop, as details and hints do, outside of calls that make no message.  Its conversions count
# as "…".  In the page messages stand in backquotes, in the first column of a table.
#	errors.t [FOLDER]		FOLDER: the source tree, by default the one this file is in
#
use strict;
use utf8;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

binmode $_, ':encoding(UTF-8)'
	foreach Test::More->builder->output, Test::More->builder->failure_output;

my $top = abs_path($ARGV[0] // dirname(__FILE__) . '/../..');

# What these are given is no message, or one that is not translated into words for users.
my $silent = join '|', qw(errdetail errdetail_plural errdetail_internal errdetail_log errhint elog
	Assert StaticAssertStmt StaticAssertDecl StaticAssertExpr AllocSetContextCreate errcontext
	hash_create WaitEventExtensionNew GUC_check_errdetail GUC_check_errhint FAULT_POINT
	appendStringInfo appendStringInfoString);

# Literals of other kinds: SQL, answers of Redis that are looked for, parts of hints.
my @other = (
	qr/^\s*(SELECT|FROM|WHERE|WITH|ORDER BY|AND x|CREATE)\b|pg_catalog|pg_locks|UNION|\|\| |IS DISTINCT|FROM l /,
	qr/^(ERR|NOAUTH|non local key|unction not found|, with args)/,
	qr/^wrong arguments, see uncache\.lua$/,
	qr/^(Write|Give|Names|Put|A template|There can be|The database must be| hosts at most)/,
	qr/^pg_uncache (worker|probe|launcher|%s of database)|^must fit into/,
	qr/^(a|an) .* must fit into/,
	qr/^It does not begin with literal text/,
	qr/^pg_uncache's own table$/,
	qr/^#!lua/,
	qr/\) != NULL/,
	qr/^More than one host$/,
);

# Files whose texts are told by a function, in words that explain themselves.
my %told_by_function = map { ("src/worker/$_.c" => 1) } qw(question_check);
$told_by_function{'src/monitoring/check_redis.c'} = 1;
# Descriptions of settings.
my %no_messages = ('src/settings/settings.c' => qr/^(?!invalid value)/);

sub slurp
{
	my ($file) = @_;

	open(my $handle, '<:encoding(UTF-8)', "$top/$file") or die "$file: $!\n";
	local $/;
	return <$handle>;
}

# Blank out what the pattern matches, but keep lines.
sub blank
{
	my ($text) = @_;

	$text =~ s/[^\n]/ /g;
	return $text;
}

my $literal = qr/"(?:\\.|[^"\\\n])*"/;
my $call;
$call = qr/\((?:[^()"']++|$literal|'(?:\\.|[^'\\\n])*'|(??{ $call }))*\)/s;

sub code_of
{
	my ($file) = @_;
	my $code = slurp($file);

	$code =~ s{(/\*.*?\*/)}{blank($1)}gse;
	$code =~ s{^(#.*)$}{blank($1)}gme;
	$code =~ s{\b((?:$silent)\s*$call)}{blank($1)}gse;
	return $code;
}

# As the page has it.
sub shown
{
	my ($text) = @_;

	$text =~ s/\\"/"/g;
	$text =~ s/\\\\/\\/g;
	$text =~ s/%(?!m)[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:ll|l|z|h)*[a-zA-Z]/…/g;
	return $text;
}

my %in_source;					# message -> where

for my $path (sort glob("$top/src/*/*.c"))
{
	my $file = substr($path, length($top) + 1);
	my $code = code_of($file);

	next if $told_by_function{$file};
	while ($code =~ /($literal(?:\s*(?:$literal|U?INT64_FORMAT))*)/g)
	{
		my ($all, $line) = ($1, 1 + (substr($code, 0, $-[0]) =~ tr/\n//));

		$all =~ s/U?INT64_FORMAT/"%d"/g;
		my $text = join '', map { substr $_, 1, -1 } $all =~ /$literal/g;
		(my $words = $text) =~ s/%\S+//g;
		next if ($text =~ tr/ //) < 2 || (() = $words =~ /[A-Za-z]{2,}/g) < 2;
		next if $text =~ /\.$/ || grep { $text =~ $_ } @other;
		next if $no_messages{$file} && $text =~ $no_messages{$file};
		# Of one and of several: the page has the second.
		next if $text =~ /%d (undelivered )?(transaction|row|overflow marker)\b(?!s)/;
		$in_source{shown($text)} //= "$file:$line";
	}
}

my %in_page;
my $number = 0;

for my $line (split /\n/, slurp('docs/errors.md'))
{
	$number++;
	my ($first) = $line =~ /^\| (`.*?) \| / or next;
	$in_page{$_ =~ s/\\\|/|/gr} = $number for $first =~ /`([^`]+)`/g;
}

cmp_ok(scalar(keys %in_source), '>', 150, 'there are messages in the source');
is(join("\n", map { "$in_source{$_}: $_" } sort grep { !$in_page{$_} } keys %in_source), '',
	'docs/errors.md explains every message of the source');
is(join("\n", map { "docs/errors.md:$in_page{$_}: $_" }
	sort grep { !$in_source{$_} && ($_ =~ tr/ //) >= 2 } keys %in_page), '',
	'every message that it explains is in the source');
done_testing();
