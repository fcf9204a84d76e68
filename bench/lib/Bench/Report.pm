# Report.pm: every figure that is measured, as CSV; and tables of them, on stdout and
# as Markdown.

package Bench::Report;

use strict;
use warnings;

use Bench::Stats;

sub new
{
	my ($class, $folder) = @_;

	open my $csv, '>', "$folder/bench.csv" or die "$folder/bench.csv: $!";
	open my $tables, '>', "$folder/tables.md" or die "$folder/tables.md: $!";
	$_->autoflush foreach $csv, $tables;
	print $csv "section,case,lane,round,figure,value\n";
	return bless { csv => $csv, tables => $tables, folder => $folder, values => {} }, $class;
}

# The figures of an earlier run, from its CSV; nothing can be added to them.
sub read
{
	my ($class, $file) = @_;
	my $self = bless { values => {} }, $class;

	open my $in, '<', $file or die "$file: $!\n";
	readline $in;				# the head
	while (my $line = readline $in)
	{
		chomp $line;
		my ($section, $case, $lane, $round, $figure, $value) = split /,/, $line;

		$self->{values}{$section}{$case}{$lane}{$figure}[$round] = $value if defined $value;
	}
	close $in;
	return $self;
}

# Where a result of this name goes.
sub file { return "$_[0]{folder}/$_[1]" }

# One figure of one round.
sub add
{
	my ($self, $section, $case, $lane, $round, $figure, $value) = @_;

	return unless defined $value;
	printf { $self->{csv} } "%s,%s,%s,%d,%s,%s\n", $section, $case, $lane, $round, $figure, $value;
	$self->{values}{$section}{$case}{$lane}{$figure}[$round] = $value;
	return;
}

sub values_of
{
	my ($self, $section, $case, $lane, $figure) = @_;

	return grep { defined } @{ $self->{values}{$section}{$case}{$lane}{$figure} // [] };
}

sub median_of { my ($self, @what) = @_; return median($self->values_of(@what)) }

# Names of the cases of a section, in alphabetical order.
sub cases { my ($self, $section) = @_; return sort keys %{ $self->{values}{$section} // {} } }

# A figure of lane and base, in pairs: of each round that has both.
sub _pairs
{
	my ($self, $section, $case, $lane, $base, $figure) = @_;
	my @a = @{ $self->{values}{$section}{$case}{$lane}{$figure} // [] };
	my @b = @{ $self->{values}{$section}{$case}{$base}{$figure} // [] };

	return map { [ $a[$_], $b[$_] ] } grep { defined $a[$_] && $b[$_] } 0 .. $#a;
}

# Of each round that has both: lane by base.
sub ratios { return map { $_->[0] / $_->[1] } _pairs(@_) }

# The same, lane less base.
sub differences { return map { $_->[0] - $_->[1] } _pairs(@_) }

# "0.91 (0.88-0.94)": median and quartiles.
sub spread
{
	my ($format, @values) = @_;

	return '-' unless @values;
	return sprintf "$format ($format-$format)", median(@values), quantile(0.25, @values),
		quantile(0.75, @values);
}

# A paragraph.
sub text
{
	my ($self, $text) = @_;

	print "$text\n";
	print { $self->{tables} } "$text\n";
	return;
}

sub _print_plain
{
	my (@rows) = @_;
	my @width;

	foreach my $row (@rows)
	{
		foreach my $i (0 .. $#$row)
		{
			my $length = length($row->[$i]);
			$width[$i] = $length if $length > ($width[$i] // 0);
		}
	}
	foreach my $row (@rows)
	{
		my $line = join '  ',
			map { sprintf $_ == 0 ? '%-*s' : '%*s', $width[$_], $row->[$_] // '' } 0 .. $#width;

		print $line =~ s/ +$//r, "\n";
	}
	return;
}

sub _print_markdown
{
	my ($out, $head, @rows) = @_;

	foreach my $row ($head, [ map { $_ ? '--:' : ':--' } 0 .. $#$head ], @rows)
	{
		print $out '| ', join(' | ', map { $row->[$_] // '' } 0 .. $#$head), " |\n";
	}
	return;
}

# A table; its first row is the head.  Lines of the title after the first one are
# a note.
sub table
{
	my ($self, $title, @rows) = @_;
	my ($heading, @note) = split /\n/, $title;

	foreach my $row (@rows)
	{
		$_ //= '-' foreach @$row;
	}
	print join("\n", '', $heading, @note), "\n\n";
	_print_plain(@rows);
	print { $self->{tables} } "\n### $heading\n\n", (map { "$_\n" } @note), @note ? "\n" : '';
	_print_markdown($self->{tables}, @rows);
	return;
}

1;
