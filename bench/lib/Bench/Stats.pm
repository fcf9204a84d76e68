# Stats.pm: medians, quartiles and percentiles.

package Bench::Stats;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(quantile median);

# Between two values it interpolates.
sub quantile
{
	my ($q, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	return undef unless @sorted;
	my $at = $q * $#sorted;
	my $below = int $at;
	my $above = $below < $#sorted ? $below + 1 : $below;
	return $sorted[$below] + ($at - $below) * ($sorted[$above] - $sorted[$below]);
}

sub median { return quantile(0.5, @_) }

1;
