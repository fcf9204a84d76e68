# Report.pm: every figure that is measured, as CSV; and tables of them.

package Bench::Report;

use strict;
use warnings;

use Bench::Stats;

sub new
{
	my ($class, $folder) = @_;

	open my $csv, '>', "$folder/bench.csv" or die "$folder/bench.csv: $!";
	$csv->autoflush;
	print $csv "section,case,lane,round,figure,value\n";
	return bless { csv => $csv, folder => $folder, values => {} }, $class;
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

# Of each round that has both: lane by base.
sub ratios
{
	my ($self, $section, $case, $lane, $base, $figure) = @_;
	my $of = $self->{values}{$section}{$case};
	my @a = @{ $of->{$lane}{$figure} // [] };
	my @b = @{ $of->{$base}{$figure} // [] };

	return map { $a[$_] / $b[$_] } grep { defined $a[$_] && $b[$_] } 0 .. $#a;
}

# "0.91 (0.88-0.94)": median and quartiles.
sub spread
{
	my ($format, @values) = @_;

	return '-' unless @values;
	return sprintf "$format ($format-$format)", median(@values), quantile(0.25, @values), quantile(0.75, @values);
}

# A table with a head, columns as wide as they must be.
sub table
{
	my ($self, $title, @rows) = @_;
	my @width;

	foreach my $row (@rows)
	{
		foreach my $i (0 .. $#$row)
		{
			my $length = length($row->[$i] // '-');
			$width[$i] = $length if $length > ($width[$i] // 0);
		}
	}
	print "\n$title\n\n";
	foreach my $row (@rows)
	{
		$row->[$_] //= '' foreach 0 .. $#width;
		my $line = join '  ', map { $_ == 0 ? sprintf '%-*s', $width[0], $row->[0] :
			  sprintf '%*s', $width[$_], $row->[$_] // '-' } 0 .. $#$row;
		print "$line\n";
	}
	return;
}

1;
