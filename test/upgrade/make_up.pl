#!/usr/bin/perl
#
# make_up.pl FOLDER older|newer: turn a copy of this source into a version that never was.
#
# "older" is 0.9: it has not the function uncache.version(), its uncache.stat and
# stat_get() lack their last column, and its Redis functions are of an earlier version; it
# gets update.sql, which leads from it to this source's version.
# "newer" is 1.99: stat_get() returns one more column, there is one more function, and its
# Redis functions are of a later version; sql/ gets the script that leads to it.
# The C code is this source's.

use strict;
use warnings;

my ($folder, $which) = @ARGV;
my ($version, $step) = $which eq 'older' ? ('0.9', -1) : ('1.99', 1);
my $has = slurp('pg_uncache.control') =~ /^default_version = '(.*)'$/m ? $1 : die 'no version';

sub slurp
{
	open(my $handle, '<', "$folder/$_[0]") or die "$_[0]: $!\n";
	local $/;
	return <$handle>;
}

sub put
{
	my ($file, $text) = @_;

	open(my $handle, '>', "$folder/$file") or die "$file: $!\n";
	print $handle $text;
	close $handle or die "$file: $!\n";
	return;
}

# Change a file; dies where nothing is changed.
sub edit
{
	my ($file, $change) = @_;
	my $text = slurp($file);

	local $_ = $text;
	$change->();
	die "$file is not as this script knows it\n" if $_ eq $text;
	put($file, $_);
	return;
}

# The statements from the beginning of one line to just before that of another.
sub part
{
	my ($sql, $from, $to) = @_;

	return $sql =~ /^($from.*?)^$to/ms ? $1 : die "no part '$from'\n";
}

my $sql = slurp("sql/pg_uncache--$has.sql");
my $stat = part($sql, 'CREATE FUNCTION uncache\.stat_get\(', 'CREATE FUNCTION uncache\.version\(');
my $function = part($sql, 'CREATE FUNCTION uncache\.version\(', 'CREATE FUNCTION ');

edit('src/base/version.h', sub { s/"\Q$has\E"/"$version"/ });
edit('pg_uncache.control', sub { s/'\Q$has\E'/'$version'/ });
edit('src/fence/uncache.lua', sub { s/^local VERSION = \K(\d+)$/$1 + $step/me });
edit('src/fence/fence_library.c',
	sub { s/^#define LIBRARY_VERSION\s+\K(\d+)$/$1 + $step/me });
edit('Makefile', sub { s/^DATA = .*$/DATA = \$(wildcard \$(TOP)sql\/pg_uncache--*.sql)/m });

if ($which eq 'older')
{
	# The last column of stat_get() and of the view, with its comment.
	my ($last) = $stat =~ /\tOUT (\w+) \w+\)\nRETURNS record/ or die 'no last column';
	my $less = $stat;

	$less =~ s/,\n\tOUT $last \w+\)/)/ or die;
	$less =~ s/, s\.$last\b// or die;
	$less =~ s/^COMMENT ON COLUMN uncache\.stat\.$last IS\n.*?;\n//ms or die;
	(my $older = $sql) =~ s/\Q$stat\E/$less/;
	$older =~ s/\Q$function\E//;
	$older =~ s/,\s*uncache\.version\(\)//g;
	put("sql/pg_uncache--$version.sql", $older);
	unlink "$folder/sql/pg_uncache--$has.sql";
	put('update.sql', "DROP VIEW uncache.stat;\nDROP FUNCTION uncache.stat_get();\n"
		. $stat . $function . grants($sql));
}
else
{
	my $column = ",\n\tOUT made_up bigint)\nRETURNS record";
	(my $more = $stat) =~ s/(\tOUT \w+ \w+)\)\nRETURNS record/$1$column/ or die 'no last column';
	$more =~ s/\nFROM uncache\.stat_get\(\) s;/, s.made_up\nFROM uncache.stat_get() s;/ or die;
	(my $newer = $sql) =~ s/\Q$stat\E/$more/;
	my $new_function = $function =~ s/uncache\.version\(/uncache.made_up(/gr;

	put("sql/pg_uncache--$version.sql", $newer . $new_function);
	put("sql/pg_uncache--$has--$version.sql",
		"DROP VIEW uncache.stat;\nDROP FUNCTION uncache.stat_get();\n"
		. $more . grants($sql) . $new_function);
}

# What the install script grants later on the objects that an update makes anew.
sub grants
{
	my ($script) = @_;

	return join '', map { "$_;\n" } grep { /uncache\.(stat|stat_get\(\)|version\(\))(?![\w])/ }
		$script =~ /^((?:GRANT|REVOKE) .*?);$/msg;
}
