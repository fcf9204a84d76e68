#!/usr/bin/perl
#
# tidy.pl: what the house asks of every file, as a TAP test; `make tidy` runs it.
#
#	tidy.pl [FOLDER]		FOLDER: the source tree, by default the one this file is in
#
# It reads files as text and runs none of them.  Each subtest is one habit; a failure
# names the file, the line and what to do.  What counts as a call is the name of an
# external function of src/ outside of comments and strings, so a function that is
# handed over by its address counts, and a call through a pointer does not.
#
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use File::Find;
use Test::More;

my $top = abs_path($ARGV[0] // dirname(__FILE__) . '/../..');
my $columns = 100;

# Folders of src/ in the order in which they may call each other: a folder calls
# itself and those before it.  src/README.md says what each is for.
my @rooms = qw(base redis settings shmem topology template pending rules outbox fence
	delivery commit worker monitoring);
my %floor = map { $rooms[$_] => $_ } 0 .. $#rooms;

# External names that PostgreSQL or the linker chose.
my %called_from_outside = map { $_ => 1 } qw(_PG_init);

my %text;						# file below $top -> its text
my %code;						# C file -> the same without comments and strings

sub slurp
{
	my ($file) = @_;

	open(my $handle, '<', "$top/$file") or die "$file: $!\n";
	local $/;
	return <$handle> // '';
}

# Blank out comments and strings, and keep the lines.
sub without_words
{
	my ($c) = @_;

	$c =~ s{(/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')}
		{my $words = $1; $words =~ s/[^\n]/ /g; $words}gse;
	return $c;
}

sub read_tree
{
	find({
		no_chdir => 1,
		preprocess => sub { grep { !/^(\.git|node_modules|tmp_check|results|output_iso)$/ } @_ },
		wanted => sub {
			return if $File::Find::name eq $top;
			my $file = substr($File::Find::name, length($top) + 1);

			return unless -f $File::Find::name && !-l $File::Find::name;
			return if $file eq 'src/fence/uncache_lua.h';	# made by make
			return unless $file =~ /\.(c|h|lua|pl|pm|t|sh|md|sql|py|js|ts|mjs|rb|php)$/
				|| basename($file) eq 'Makefile';
			$text{$file} = slurp($file);
		}
	}, $top);
	for my $file (grep { m{^src/.*\.[ch]$} } keys %text)
	{
		$code{$file} = without_words($text{$file});
	}
}

# A module is a file without its ending: a.c, a.h and a_int.h are one.
sub module
{
	my ($file) = @_;

	$file =~ s/(_int)?\.[ch]$//;
	return $file;
}

sub room
{
	my ($file) = @_;

	return $file =~ m{^src/(\w+)/} ? $1 : undef;
}

# External functions: name -> [file, line].  PostgreSQL's style puts the name at the
# beginning of a line, below its type.
my (%defined_in, %line_of);

sub find_functions
{
	for my $file (sort grep { /\.c$/ } keys %code)
	{
		my $before = '';
		my $number = 0;

		for my $line (split /\n/, $code{$file})
		{
			$number++;
			my ($name) = $line =~ /^([A-Za-z_]\w*)\(/;

			if (defined $name && $name !~ /^PG_/ && $before =~ /^[A-Za-z_]/
				&& $before !~ /\bstatic\b|;\s*$/)
			{
				$defined_in{$name} = $file;
				$line_of{$name} = $number;
			}
			$before = $line if $line =~ /\S/;
		}
	}
}

# module -> module it calls -> [name, file]
my %calls;

sub find_calls
{
	for my $file (sort keys %code)
	{
		next if $file eq 'src/pg_uncache.c';
		while ($code{$file} =~ /\b([a-z_]\w*)\b/g)
		{
			my $name = $1;
			my $home = $defined_in{$name} or next;

			# A prototype is no call.
			next if $file =~ /\.h$/ && $code{$file} =~ /^extern[^;]*\b$name\(/m;
			next if module($home) eq module($file);
			$calls{module($file)}{module($home)} //= [$name, $file];
		}
	}
}

# Tarjan's strongly connected components, of more than one module.
sub circles
{
	my (%index, %low, %on_stack, @stack, @found);
	my $next = 0;
	my $visit;

	$visit = sub {
		my ($module) = @_;

		$index{$module} = $low{$module} = $next++;
		push @stack, $module;
		$on_stack{$module} = 1;
		for my $called (sort keys %{$calls{$module} // {}})
		{
			if (!defined $index{$called})
			{
				$visit->($called);
				$low{$module} = $low{$called} if $low{$called} < $low{$module};
			}
			elsif ($on_stack{$called} && $index{$called} < $low{$module})
			{
				$low{$module} = $index{$called};
			}
		}
		return if $low{$module} != $index{$module};
		my @component;
		while (defined(my $member = pop @stack))
		{
			delete $on_stack{$member};
			push @component, $member;
			last if $member eq $module;
		}
		push @found, [sort @component] if @component > 1;
	};
	$visit->($_) for grep { !defined $index{$_} } sort keys %calls;
	return @found;
}

sub none
{
	my ($what, @wrong) = @_;

	ok(!@wrong, $what) or diag(join("\n", @wrong[0 .. ($#wrong > 39 ? 39 : $#wrong)]),
		@wrong > 40 ? "\nand " . (@wrong - 40) . ' more' : '');
}

# A file of src/ other than the map lies in a room.
sub test_rooms
{
	none('every file of src/ lies in a folder that the order names',
		map { "$_: move it into one of: @rooms" }
			grep { $_ ne 'src/pg_uncache.c' && !defined $floor{room($_) // ''} } sort keys %code);
}

# A TAP file lies in a folder by theme, and no two have the same number.
sub test_tap_files
{
	my (@wrong, %with_number);

	for my $file (sort grep { m{^test/t/.*\.t$} } keys %text)
	{
		my ($number) = basename($file) =~ /^(\d+)_/;

		push @wrong, "$file: move it into a folder by theme (test/README.md)"
			if $file !~ m{^test/t/\w+/[^/]+$};
		push @wrong, "$file: has no number" if !defined $number;
		push @{$with_number{$number // ''}}, $file;
	}
	push @wrong, map { "the same number: @$_" }
		grep { @$_ > 1 } @with_number{sort keys %with_number};
	none('a TAP file lies in a folder by theme, with a number of its own', @wrong);
}

sub test_order
{
	my @wrong;

	for my $module (sort keys %calls)
	{
		for my $called (sort keys %{$calls{$module}})
		{
			my ($from, $to) = (room("$module.c"), room("$called.c"));

			next unless defined $floor{$from // ''} && defined $floor{$to // ''};
			next if $floor{$to} <= $floor{$from};
			my ($name, $file) = @{$calls{$module}{$called}};
			push @wrong, "$file: calls $name() of $called, and $from comes before $to;"
				. " hand it up as a returned value, a counter or a latch";
		}
	}
	none('no folder calls one that comes after it', @wrong);
}

sub test_includes
{
	my @wrong;

	for my $file (sort keys %text)
	{
		next unless $file =~ m{^src/.*\.[ch]$} && $file ne 'src/pg_uncache.c';
		while ($text{$file} =~ /^#include "((\w+)\/[\w.]+)"/mg)
		{
			my ($header, $to) = ($1, $2);
			next unless defined $floor{$to} && defined $floor{room($file) // ''};
			push @wrong, "$file: includes $header of a later folder"
				if $floor{$to} > $floor{room($file)};
			push @wrong, "$file: includes $header, which is private to $to"
				if $header =~ /_int\.h$/ && $to ne room($file);
		}
	}
	none('no file includes a later folder\'s header, or another folder\'s private one', @wrong);
}

sub test_circles
{
	none('no files call each other in a circle',
		map { 'in a circle: ' . join(' ', @$_) } circles());
}

# An external function begins with its file's name, or with the first word of it where
# other files of the folder share that word: rule_cache.c may have rule_acquire().  SQL
# functions and the main functions of processes begin with uncache_.
sub test_prefixes
{
	my @wrong;

	for my $name (sort keys %defined_in)
	{
		my $file = $defined_in{$name};
		my $base = basename($file, '.c');
		my ($family) = $base =~ /^([a-z]+)_/;
		my @relatives = defined $family ? grep { m{/\Q$family\E(_\w+)?\.c$} } keys %code : ();

		next if $called_from_outside{$name} || $name =~ /^uncache_/;
		next if grep { $name =~ /^\Q$_\E(_|$)/ } $base, @relatives > 1 ? $family : ();
		push @wrong, "$file:$line_of{$name}: $name() should begin with ${base}_";
	}
	none("an external function begins with its file's name", @wrong);
}

sub test_names
{
	my $word = qr/outbox|rule|redis|fence|delivery|pattern|cluster|second|node|link|replica/;

	none('words of a file\'s name are separated', map { "$_: write its words apart, with _" }
		grep { basename($_) =~ /^(?:re)?(?:$word)(?!_|s?\.|s_|set\.|ed)[a-z]+/ }
		grep { m{^src/} } sort keys %code);
}

sub test_heads
{
	my @wrong;

	for my $file (sort grep { m{^(src|bench|test)/.*\.[ch]$} } keys %text)
	{
		my $name = basename($file);
		push @wrong, "$file: its first comment should name it"
			unless substr($text{$file}, 0, 400) =~ m{/\*[-\s]*\*?\s*\Q$name\E\b}s;
	}
	none('a file\'s head names it', @wrong);
}

# A tab is worth four columns in C, as PostgreSQL has it.
sub width
{
	my ($line) = @_;

	utf8::decode($line);
	1 while $line =~ s/^([^\t]*)\t/$1 . ' ' x (4 - length($1) % 4)/e;
	return length $line;
}

# Long for a reason: a table's row can't be broken, nor a link, a command, nor a test's data, nor a
# regular expression, which then has a line of its own, nor a message of the library, which
# stands on one line so that it can be searched for.
sub may_be_long
{
	my ($file, $line) = @_;

	return 1 if $file =~ m{^(expected|sql)/|/expected/|\.sql$};
	return 1 if $file =~ /\.md$/ && $line =~ /^\s*(\||!?\[|<)|https?:|^ {4}|^\S*$|`[^`]{80,}`/;
	return 1 if $file =~ /\.[ch]$/ && $line =~ /^\s*[^\s"]*( = | )?"(?:[^"\\]|\\.){60,}"/;
	return 1 if $file =~ /\.(pl|pm|t)$/ && $line =~ m{^\s*(qr[/\{]|/)};
	return 0;
}

sub test_columns
{
	my @wrong;

	for my $file (sort keys %text)
	{
		my ($number, $fenced) = (0, 0);

		for my $line (split /\n/, $text{$file})
		{
			$number++;
			$fenced = !$fenced if $file =~ /\.md$/ && $line =~ /^\s*```/;
			next if $fenced || width($line) <= $columns || may_be_long($file, $line);
			push @wrong, "$file:$number: " . width($line) . " columns, more than $columns";
		}
	}
	none("no line is longer than $columns columns", @wrong);
}

sub test_blanks
{
	my @wrong;

	for my $file (sort keys %text)
	{
		next if $file =~ m{^expected/|/expected/|\.md$};
		my $number = 0;
		for my $line (split /\n/, $text{$file})
		{
			$number++;
			push @wrong, "$file:$number: a blank before a tab"
				if $line =~ /^ +\t/ || $line =~ /^\t* \t/;
			push @wrong, "$file:$number: blanks at the end" if $line =~ /[ \t]$/;
		}
	}
	none('no blank stands before a tab, and none at a line\'s end', @wrong);
}

# The anchors that a page has: GitHub's way to make them of its headings.
sub anchors
{
	my ($page) = @_;
	my (%seen, %anchor);

	$page =~ s/^```.*?^```//gms;
	while ($page =~ /^#+ +(.*)$/mg)
	{
		my $name = lc $1;
		$name =~ s/\[([^]]*)\]\([^)]*\)/$1/g;
		$name =~ s/[^\w\- ]//g;
		$name =~ tr/ /-/;
		$anchor{$seen{$name}++ ? "$name-" . ($seen{$name} - 1) : $name} = 1;
	}
	return \%anchor;
}

sub test_links
{
	my @wrong;

	for my $file (sort grep { /\.md$/ } keys %text)
	{
		(my $page = $text{$file}) =~ s/^```.*?^```//gms;
		while ($page =~ /\]\(([^)\s]+)\)/g)
		{
			my $link = $1;
			next if $link =~ /^(https?|mailto):/;
			my ($path, $anchor) = split /#/, $link, 2;
			my $target = $path eq '' ? $file : dirname($file) . "/$path";

			$target =~ s{^\./}{};
			1 while $target =~ s{[^/.][^/]*/\.\./}{};
			if (!-e "$top/$target")
			{
				push @wrong, "$file: $link leads nowhere";
			}
			elsif (defined $anchor && $target =~ /\.md$/ && !anchors(slurp($target))->{$anchor})
			{
				push @wrong, "$file: $target has no heading for #$anchor";
			}
		}
	}
	none('links in docs lead somewhere', @wrong);
}

read_tree();
find_functions();
find_calls();
test_rooms();
test_tap_files();
test_order();
test_includes();
test_circles();
test_prefixes();
test_names();
test_heads();
test_columns();
test_blanks();
test_links();
done_testing();
